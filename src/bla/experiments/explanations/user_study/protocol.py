"""The user study's questions and the rule of exclusion, fixed before the first answer.

Each person compares BLA-T with every one of `OTHERS`, `QUESTIONS` times on every dataset, with the sides in random
order, answers one of these questions again with the sides swapped, and then predicts the decided class from an
explanation alone, once for each of `METHODS` on every dataset.

A person is excluded for any of these reasons: the comprehension item is answered wrongly at the first attempt; the
median time of a comparison is below `FASTEST` seconds; all comparisons, the repeated one included, have the same side;
or the person is in an earlier file. The repeated question excludes nobody: people with weak preferences change their
minds more often, so excluding them would make all preferences look stronger.

Source: Baumhauer et al. 2021, section 4.4 and Figures 4 to 11; the prediction of the class and the rule are ours.
"""

OTHERS = {"grad_cam": "CAM", "l2x_f": "L2X-F", "other_image": "random"}
"""What BLA-T is compared with, and the names in the paper's Figure 4."""
TITLES = {"bla_t": "BLA-T", "grad_cam": "Grad-CAM", "l2x_f": "L2X-F", "other_image": "explanation of another image"}
METHODS = tuple(TITLES)
CLAIMED = {18: "grad_cam", 19: "l2x_f", 20: "other_image"}
"""The comparison that each claim of the paper is about."""

QUESTIONS = 4
"""Questions for each comparison and dataset (paper)."""
OPTIONS = 4
"""Classes to choose from in the prediction of the class; two on datasets of two classes."""
PERSONS = 62
"""Participants of the paper's study."""
FASTEST = 2.0
"""Seconds; nobody compares two explanations faster."""

GENDERS = ("male", "female", "other", "not said")
"""As in the paper's Figure 8; `not said` is ours."""
AGREEMENT = ("strongly disagree", "disagree", "undecided", "agree", "strongly agree")
"""The answers to "I have technical experience with ML/AI" and "with XAI" (the paper's Figures 10 and 11)."""
AGES = (18, 99)
COMPREHENSION = ("house", "sun", "grass")
"""Answers to the comprehension item: where does this system look?"""
UNDERSTOOD = "sun"
