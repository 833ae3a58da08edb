"""An entry of `dataset` in params.yaml: images, backbone and training."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from annotated_types import MinLen
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from bla.base.specs import (
    Backbone,
    Coco,
    ImageFolder,
    Images,
    ImageTable,
    Mnist,
    PaintedBirds,
    PaintedFlock,
    PascalVoc,
    Schedule,
)


def refuse_repetition(key: str, names: Sequence[object], what: str = "a name") -> None:
    """Raise ValueError if something is listed twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"{key}: {what} is listed twice")


def is_text(name: str) -> str:
    """The name; an error for one that a table would give back as a number, a truth value or a gap (`nan`)."""
    if name not in ("null", "true", "false"):
        try:
            float(name)
        except ValueError:
            return name
    raise PydanticCustomError("no_text", "tables need a name that is no number, truth value or gap")


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$"), AfterValidator(is_text)]
"""Names are used in file and stage names: lower-case letters, digits and underscores."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def has_several_classes(images: Images) -> bool:
    """Whether images have any number of classes, so that labels are multi-hot."""
    of_table = isinstance(images, ImageTable) and images.labels == "several"
    return of_table or isinstance(images, PaintedFlock | PascalVoc | Coco)


class DatasetEntry(Strict):
    """Images, backbone, training and classifier: one row of Table 1.

    With `classifier: own` BL is the classifier of the checkpoint, with its own head; else BL's heads are trained here.
    `classifier_labels` is a text file with the classes of the own head's outputs, one a line; None if they are sorted.
    """

    images: Annotated[Images, Field(discriminator="kind")]
    backbone: Backbone
    training: Schedule
    classifier: Literal["trained_here", "own"] = "trained_here"
    classifier_labels: Annotated[str, MinLen(min_length=1)] | None = None

    @property
    def has_own_head(self) -> bool:
        """Whether BL is the classifier of the checkpoint."""
        return self.classifier == "own"

    @property
    def can_have_own_head(self) -> bool:
        """Whether BL is trained here, but could be the classifier of the checkpoint, on the user's images."""
        return not self.has_own_head and isinstance(self.images, ImageFolder | ImageTable)

    @model_validator(mode="after")
    def own_classifier_is_possible(self) -> Self:
        if not self.has_own_head:
            if self.classifier_labels is not None:
                raise ValueError("classifier_labels: only for classifier own; set it to null")
            return self
        if not isinstance(self.images, ImageFolder | ImageTable):
            raise ValueError("classifier: own needs images of kind image_folder or image_table; set it to trained_here")
        if self.backbone.tail != "pooled":
            raise ValueError("backbone.tail: classifier own has the head of the checkpoint; set tail to pooled")
        return self

    @model_validator(mode="after")
    def images_and_backbone_are_possible(self) -> Self:
        images = self.images
        if isinstance(images, PaintedBirds | PaintedFlock) and images.bird_size[0] > images.bird_size[1]:
            raise ValueError("images.bird_size: needs the smallest and then the largest length")
        if isinstance(images, PaintedFlock):
            least, most = images.birds
            if least > most:
                raise ValueError("images.birds: needs the smallest and then the largest number")
            if most > images.species:
                raise ValueError(
                    f"images.birds: {most} birds of different species need more than {images.species} species"
                )
        if isinstance(images, PaintedBirds):
            species = 16 if images.differ_in is None else 2
            for field in ("train_images", "test_images", "validation_images"):
                if (count := getattr(images, field)) is not None and count < species:
                    raise ValueError(f"images.{field}: {count} images are fewer than the {species} species")
        if isinstance(images, Mnist):
            refuse_repetition("images.classes", images.classes, "a digit")
        noisy, draws = self.backbone.stochastic_depth > 0, self.backbone.draws
        if (noisy and draws < 5) or (not noisy and draws > 1):
            raise ValueError(
                f"backbone.draws: needs {'at least 5' if noisy else '1'}, not {draws}, "
                f"with stochastic_depth {self.backbone.stochastic_depth:g}; or set that to {'0' if noisy else '0.2'}"
            )
        return self
