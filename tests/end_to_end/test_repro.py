"""The real pipeline with a reduced params.yaml: outputs, reruns, and kills."""

import io
import json
import re
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from commands import ENV, run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UP_TO_DATE = "Data and pipelines are up to date."
SAY_WHICH_LIBRARY = "import bla\n\nprint('imported', bla.__file__)\n"
DIE_AS_PLANNED = """
import os, signal, sys
from pathlib import Path
if sys.argv[1:2] == Path("kill").read_text().split()[:1]:
    replace, renamed = Path.replace, []
    def strike(path, target):
        replace(path, target)
        renamed.append(path)
        if len(renamed) == int(Path("kill").read_text().split()[1]):
            os.killpg(0, signal.SIGKILL)
    Path.replace = strike
"""
"""The file `kill` has a stage and a number: after that many renamed files the stage and its parent are killed."""


def stages(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def outputs(project: Path) -> dict[str, str]:
    """The hash of every output in dvc.lock."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


@pytest.fixture(scope="module")
def repository(make_project):
    """`repository(folder, code)`: a new small project in git, in which nothing has run.

    `code` runs in every stage: it is appended to the module that reads params.yaml, on which no result depends.
    """

    def make(folder: Path, code: str) -> Path:
        make_project(folder, copy=True)
        path = folder / "pipeline/run/settings.py"
        path.write_text(f"{path.read_text()}\n\n{code}")
        run(folder, "git", "init", "-q")
        run(folder, "git", "add", "-A")
        run(folder, "git", "commit", "-qm", "start")
        return folder

    return make


@pytest.fixture(scope="module")
def project(tmp_path_factory, repository):
    """A small project after one run. Do not modify it."""
    target = repository(tmp_path_factory.mktemp("project"), SAY_WHICH_LIBRARY)
    every = set(yaml.safe_load((target / "dvc.yaml").read_text())["stages"])
    assert {name.partition("@")[0] for name in stages(run(target, "dvc", "repro"))} == every
    run(target, "git", "add", "-A")
    run(target, "git", "commit", "-qm", "first run")
    return target


def test_every_promised_output_exists(project):
    tables = {"runs.csv", "table1.csv", "table1.md", "tests.csv", "claims.csv", "claims.md"}
    tables |= {f"two_network_l2x{ending}.csv" for ending in ("", "_runs", "_tests", "_digits", "_digits_runs")}
    for name in ("small_cnn", "abandoned_modules", "temperature_threshold"):
        tables |= {f"{name}{ending}.csv" for ending in ("", "_runs", "_tests")}
    tables |= {f"subset_selection{ending}.csv" for ending in ("", "_features", "_runs", "_tests")}
    tables |= {f"explanation_size{ending}.csv" for ending in ("", "_runs", "_classes", "_bins")}
    tables |= {f"unstated_choices{ending}.csv" for ending in ("", "_effects", "_runs")}
    tables |= {"agreement.csv", "errors.csv", *(f"learned_methods{ending}.csv" for ending in ("", "_cost", "_tests"))}
    tables |= {
        f"multi_label{ending}.csv" for ending in ("", "_classes", "_metrics", "_objectives", "_specificity", "_tests")
    }
    tables |= {
        f"structure{ending}.csv" for ending in ("", "_explained", "_hard", "_images", "_parts", "_relations", "_tests")
    }
    tables |= {"x_features.csv", "x_features_contributions.csv"}
    tables |= {"planted_bias.csv"}
    tables |= {f"user_study{ending}.csv" for ending in ("", "_tests", "_predictions", "_participants", "_excluded")}
    tables |= {"table2.csv", "table2.md", "table2_tests.csv", "faithfulness.csv", "faithfulness_tests.csv"}
    tables |= {
        "faithfulness_differences.csv",
        "faithfulness_methods.csv",
        "faithfulness_metrics.csv",
        "faithfulness_randomisation.csv",
        "faithfulness_parts.csv",
        "faithfulness_controls.csv",
        "faithfulness_objectives.csv",
        "what_the_method_does.csv",
        "what_the_method_does.md",
        "faithfulness_per_image.csv.gz",
    }
    assert {path.name for path in (project / "reports/tables").iterdir() if path.name != ".gitignore"} == tables
    figures = project / "reports/figures"
    assert {path.name for path in (figures / "explanations/painted_birds").iterdir()} == {"bla.png", "bla_t.png"}
    assert {path.name for path in (figures / "planted_bias").iterdir()} == {"chart.png", "painted_birds.png"}
    assert {path.name for path in (figures / "user_study").iterdir()} == {f"figure{n}.png" for n in (4, *range(7, 12))}
    abandoned = {f"painted_birds_{name}.png" for name in ("bla", "concept_vector", "concept_vector_relu", "pointwise")}
    assert {path.name for path in (figures / "abandoned_modules").iterdir()} == {"runs.png", *abandoned}
    assert {path.name for path in figures.iterdir() if path.is_file() and path.name != ".gitignore"} == {
        "figure3.svg",
        "figure3.png",
        "table1.png",
        *(f"{name}.png" for name in ("unstated_choices", "explanation_size", "small_cnn", "two_network_l2x")),
        "temperature_threshold.png",
        "subset_selection.png",
        "agreement.png",
        "structure.png",
        *(f"{name}_painted_birds.png" for name in ("overview", "maps", "lime", "curves", "ranks", "cascade", "parts")),
    }
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["painted_birds"].keys() == {"bl", "bla", "bla_t", "bl_plus"}
    assert metrics["painted_birds"]["bla"].keys() == {"accuracy", "loss", "explanation_size"}


def test_git_tracks_no_dvc_outputs_and_sees_no_changes(project):
    assert not run(project, "git", "status", "--porcelain")
    tracked = run(project, "git", "ls-files").splitlines()
    assert not [name for name in tracked if name.startswith(("models/", ".work/", "data/images/", "reports/html/"))]


def test_runs_csv_has_one_row_per_run_and_table_one_averages_them(project):
    runs = pd.read_csv(project / "reports/tables/runs.csv")
    expected = {
        "dataset",
        "variant",
        "run",
        "seed",
        "accuracy",
        "loss",
        "soft_accuracy",
        "soft_loss",
        "n_cells",
        "explanation_size",
    }
    assert expected <= set(runs)
    assert runs.groupby("variant")["run"].apply(list).tolist() == [[0, 1]] * 4
    assert runs["seed"].is_unique
    bl = runs[runs["variant"] == "bl"]
    assert bl[["soft_accuracy", "soft_loss", "explanation_size"]].isna().all(axis=None)
    table = pd.read_csv(project / "reports/tables/table1.csv").query("measure == 'loss'").set_index("variant")["mean"]
    means = runs.groupby("variant")["loss"].mean()
    pd.testing.assert_series_equal(table.sort_index(), means, check_names=False, rtol=1e-4)


def test_unstated_choices_are_crossed_and_tested(project):
    runs = pd.read_csv(project / "reports/tables/unstated_choices_runs.csv")
    cells = runs.groupby(["normalisation", "stochastic_depth", "column"]).size()
    assert len(cells) == 2 * 2 * len(set(runs["column"]))
    assert set(cells) == {2}
    assert set(runs.loc[runs["stochastic_depth"] > 0, "draws"]) == {2}
    effects = pd.read_csv(project / "reports/tables/unstated_choices_effects.csv")
    assert {"normalisation", "stochastic_depth", "threshold rule", "head of BLA-PH"} < set(effects["choice"])
    assert effects["p_holm"].ge(effects["p"] - 1e-9).all()


def test_every_method_has_a_row_and_every_value_an_image(project):
    means = pd.read_csv(project / "reports/tables/faithfulness.csv")
    values = pd.read_csv(project / "reports/tables/faithfulness_per_image.csv.gz")
    assert set(means["method"]) == {
        "lime",
        "cam",
        "score_cam",
        "rise",
        "random",
        "l_cam_fm",
        "l_cam_img",
        "explainer_network",
        "xnn",
        "bla",
        "bla_t",
        "mask",
    }
    again = values.groupby(["method", "metric"])["value"].agg(["mean", "count"])
    seconds = means[means["metric"] == "seconds"].set_index("method")
    assert set(seconds.index) == set(means["method"]) - {"mask"}
    assert (seconds["mean"] > 0).all()
    for row in means[
        means["metric"] != "seconds"
    ].itertuples():  # which are not in the table of values, but in another run differ
        mean, count = again.loc[(row.method, row.metric)]
        assert row.mean == pytest.approx(mean, rel=1e-4, abs=1e-5)
        assert row.n == count
    cost = means[means["metric"] == "forwards"].set_index("method")
    assert cost.loc[["lime", "cam", "rise", "random", "bla"], "mean"].tolist() == [100, 1, 20, 0, 1]
    assert cost.loc[["lime", "cam", "score_cam", "rise"], "n"].tolist() == [6, 6, 4, 4]
    assert set(means.query("metric == 'deletion_black'")["n"]) == {4}
    assert not set(means.query("method == 'random'")["metric"]) & {"randomised_network", "randomised_head", "stability"}
    assert {"part_effects", "part_effects_mean"} <= set(means.query("method == 'bla'")["metric"])
    assert set(means.query("metric == 'own_part_effects'")["method"]) == {"bla", "bla_t"}
    two = pd.read_csv(project / "reports/tables/table2.csv")
    assert list(two["method"]) == ["lime", "cam", "grad_cam", "bla", "bla_t", "bla_t_after_threshold"]
    assert two["title"].str.contains("after").tolist() == [False] * 5 + [True]
    assert set(two["n_runs"]) == {2}


def test_the_pages_work_offline_and_link_to_each_other(project):
    pages = {path.name: path.read_text() for path in (project / "reports/html").glob("*.html")}
    browser = (project / "reports/browser.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", browser)
    assert 'href="html/index.html"' in browser
    reports = yaml.safe_load((project / "params.yaml").read_text())["reports"]
    assert pages.keys() == {"index.html", *(f"{name}.html" for name in reports)}
    for name, text in pages.items():
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text), name
        assert "@import" not in text, name
        assert "<script" not in text, name
        for target in re.findall(r'href="([^"#]+)"', text):
            assert (project / "reports/html" / target).is_file(), f"{name}: {target}"
            assert target in pages or target.startswith(("../browser.html", "../structure/")), f"{name}: {target}"
        assert 'href="../browser.html"' in text, name
    assert all(f'href="{name}.html"' in pages["index.html"] for name in reports)
    assert "data:image/png" in pages["explanations.html"]


def test_nothing_runs_again_when_nothing_has_changed(project):
    output = run(project, "dvc", "repro")
    assert not stages(output)
    assert UP_TO_DATE in output


def test_a_fresh_clone_shows_whether_the_lock_matches_code_settings_and_tables(project, tmp_path):
    copy = tmp_path / "copy"
    run(tmp_path, "git", "clone", "-q", str(project), str(copy))
    check = ("dvc", "repro", "--allow-missing", "--dry")
    assert UP_TO_DATE in run(copy, *check)
    for name in ("src/bla/method/equations.py", "pipeline/stages/table1.py", "params.yaml", "reports/tables/table1.md"):
        path = copy / name
        before = path.read_text()
        path.write_text(before + "\n# changed\n")
        done = subprocess.run(check, cwd=copy, env=ENV, capture_output=True, text=True, check=False)
        assert UP_TO_DATE not in done.stdout, name
        path.write_text(before)


def test_a_temporary_experiment_uses_its_copy_of_the_code_and_runs_only_affected_stages(project):
    """As far as Table 1, like `make sweep`; which stages a setting reaches further on: tests/pipeline/test_dvc_yaml.py."""
    change = ("-S", "variant.bla_t.threshold_factor=0.5", "table1")
    output = run(project, "dvc", "exp", "run", "--temp", "-n", "lower", *change)
    assert stages(output) == {"settings", "train_variant@painted_birds-bla_t", "tests", "table1"}
    imported = set(re.findall(r"imported (.*)", output))
    assert imported
    assert all(".dvc/tmp/exps" in path for path in imported)
    assert not run(project, "git", "status", "--porcelain")
    shown = pd.read_csv(io.StringIO(run(project, "dvc", "exp", "show", "--csv")))
    lower = shown[shown["Experiment"] == "lower"].iloc[0]
    assert lower["variant.bla_t.threshold_factor"] == 0.5
    metrics = [f"painted_birds.{key}.{m}" for key in ("bla", "bla_t") for m in ("accuracy", "loss", "explanation_size")]
    assert set(metrics) <= set(shown)
    changed = {name for name in metrics if lower[name] != shown[name].iloc[0]}
    assert changed
    assert all(".bla_t." in name for name in changed)


def test_kills_change_no_byte_of_the_outputs(project, repository, tmp_path):
    other, target = repository(tmp_path, DIE_AS_PLANNED), ("dvc", "repro", "features@painted_birds")
    # The first file that each renames is an array; the second one renamed by the extraction is the count of chunks.
    for plan, left in (
        ("prepare 1", "data/images/painted_birds/*.npy"),
        ("features 2", ".work/features-*-train-*/done.json"),
    ):
        (other / "kill").write_text(plan)
        process = subprocess.run(target, cwd=other, env=ENV, start_new_session=True, capture_output=True, check=False)
        assert process.returncode == -signal.SIGKILL
        assert list(other.glob(left))
        assert not list(other.glob("data/features/*/*"))
    (other / "kill").write_text("")
    run(other, *target)
    after, undisturbed = outputs(other), outputs(project)
    after = {name: md5 for name, md5 in after.items() if not name.startswith("data/code")}  # their code differs
    assert {"models/backbones/painted_birds.safetensors", "data/features/painted_birds"} < set(after)
    assert after == {name: undisturbed[name] for name in after}


def test_an_edit_deep_in_the_library_recomputes_cached_numbers_and_undoing_it_restores_them(project):
    table, module = project / "reports/tables/temperature_threshold_runs.csv", project / "src/bla/runtime/adam.py"
    before, text = table.read_text(), module.read_text()
    module.write_text(text.replace("lr=self.learning_rate", "lr=2 * self.learning_rate"))
    output = run(project, "dvc", "repro", "temperature_threshold")
    assert {"code", "baseline@painted_birds", "temperature_threshold"} <= stages(output)
    assert not stages(output) & {"prepare@painted_birds", "features@painted_birds"}
    assert table.read_text() != before
    module.write_text(text)
    run(project, "dvc", "repro", "temperature_threshold")
    assert table.read_text() == before
