"""The table of claims: every case of every claim, its answer here, and the verdict on the paper.

    claims = judge_claims(evidence)

A claim gets a verdict only on the paper's datasets with the paper's settings (`bla.base.paper`). Other data can neither
reproduce nor refute it.
"""

import pandas as pd

from bla.claims.register import CLAIMS, Case, Evidence

VERDICTS = {"yes": "reproduced", "no": "not reproduced", "inconclusive": "inconclusive"}
"""The verdict for each answer, on the paper's data with the paper's settings."""
COLUMNS = ["claim", "text", "dataset", "paper", "ours", "test", "p", "holds_here", "verdict", "reason"]


def judge_claims(evidence: Evidence) -> pd.DataFrame:
    """A row per case: claim, text, dataset, paper (published values), ours, test, p (raw), holds_here, verdict and reason.

    `holds_here` is yes, no, inconclusive, or empty if nothing was tested. `verdict` is reproduced, not reproduced,
    inconclusive or not run.
    """
    rows = []
    for number, cases in CLAIMS:
        for case in cases(evidence):
            finding, (verdict, reason) = case.finding, judged(case)
            answer = (
                ("", "", float("nan"), "")
                if finding is None
                else (finding.ours, finding.test, finding.p, finding.holds_here)
            )
            rows.append((number, case.text, case.dataset, case.paper, *answer, verdict, reason))
    return pd.DataFrame(rows, columns=COLUMNS)


def judged(case: Case) -> tuple[str, str]:
    """The verdict on the paper's claim, and its reason. No other function decides a verdict."""
    if case.finding is None:
        return "not run", case.obstacle
    settings = f"not the paper's settings: {', '.join(case.departures)}" if case.departures else ""
    if reason := case.obstacle or settings:
        return "not run", reason
    return VERDICTS[case.finding.holds_here], case.remark
