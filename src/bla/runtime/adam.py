"""Adam (Kingma and Ba 2015): torch's fused kernel, without the classes of torch.optim.

The first step of a torch.optim class imports torch's compiler, which takes two seconds: as long as some stages.

    adam = Adam([weight, bias], learning_rate=1e-3, epsilon=1e-7)
    adam.minimise(loss)
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Adam for contiguous tensors that require gradients, with their moments; betas 0.9 and 0.999 (Keras, torch)."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, epsilon: float) -> None:
        self.parameters, self.learning_rate, self.epsilon = parameters, learning_rate, epsilon
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    def minimise(self, loss: Tensor) -> None:
        """Take one step down the gradient of the loss; tensors on which the loss does not depend are not changed."""
        gradients_or_none = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        state = zip(self.parameters, gradients_or_none, self.first, self.second, self.steps, strict=True)
        updated = [(p, gradient.contiguous(), *rest) for p, gradient, *rest in state if gradient is not None]
        parameters, gradients, first, second, steps = (list(values) for values in zip(*updated, strict=True))
        with torch.no_grad():  # the fused kernel ignores strides
            adam(
                *(parameters, gradients, first, second, [], steps),
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.learning_rate,
                weight_decay=0,
                eps=self.epsilon,
                maximize=False,
            )
