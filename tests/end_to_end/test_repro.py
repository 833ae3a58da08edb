"""The real pipeline with the real params.yaml, shrunk: what reruns, what comes out, what a kill leaves behind."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
ENV = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "BLA_DEVICE": "cpu",
    "PYTHONUNBUFFERED": "1",
} | {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
EVERY_STAGE = {"settings", "prepare", "backbone", "features", "baseline", "explainer", "statistics"} | {
    "tables", "gallery", "figures", "sizes", "fidelity", "sensitivity", "alternatives", "small_cnn", "l2x",
    "reports", "lime", "maps", "faithfulness", "comparison",
}  # fmt: skip


def run(project: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=project, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages(output: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", output))


def edit_params(project: Path, **changes: object) -> None:
    """Set dotted names (with __ for the dot) in params.yaml."""
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        here = params
        for parent in parents:
            here = here[parent]
        here[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def outputs(project: Path) -> dict[str, str]:
    """The hash of every output in dvc.lock."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


def clone(source: Path, target: Path) -> Path:
    """The tracked files as they are now, in a repository of their own."""
    names = run(source, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (source / name).is_file() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    (target / "dvc.lock").unlink(missing_ok=True)
    run(target, "git", "init", "-q")
    run(target, "git", "add", "-A")
    run(target, "git", "commit", "-qm", "start")
    return target


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with few and small images, two runs and two variants, run once."""
    target = clone(ROOT, tmp_path_factory.mktemp("project"))
    images = dict.fromkeys(("train_images", "test_images"), 60) | {"image_size": 32, "digit_size": 12, "fragments": 4}
    edit_params(
        target,
        datasets=["cluttered_digits"],
        variants=["bla", "bla_t"],
        explainers=["cam", "score_cam", "rise", "random"],
        runs=3,
        explainer__lime__patterns=100,
        explainer__rise__masks=20,
        faithfulness__images=6,
        faithfulness__slow_images=4,
        faithfulness__check_images=2,
        faithfulness__retraining_images=32,
        statistics__resamples=99,
        fidelity__datasets=["cluttered_digits"],
        fidelity__runs=2,
        fidelity__draws=2,
        sensitivity__datasets=["cluttered_digits"],
        sensitivity__temperatures=[0.1],
        sensitivity__threshold_factors=[0, 0.98],
        sensitivity__runs=2,
        alternatives__datasets=["cluttered_digits"],
        alternatives__runs=2,
        small_cnn__images=100,
        small_cnn__epochs=1,
        l2x__datasets=["cluttered_digits"],
        l2x__epochs=1,
        l2x__runs=2,
        l2x__train_images=40,
        l2x__test_images=30,
        l2x__digits__runs=2,
        pretraining__epochs=1,
        pretraining__batch_size=30,
        dataset__cluttered_digits__training__epochs=2,
        **{f"dataset__cluttered_digits__images__{name}": value for name, value in images.items()},
    )
    # Which copy of the library runs? Every stage says so.
    path = target / "pipeline/run/settings.py"
    path.write_text(path.read_text() + "\n\nimport bla\n\nprint('imported', bla.__file__)\n")
    assert {name.partition("@")[0] for name in stages(run(target, "dvc", "repro"))} == EVERY_STAGE
    run(target, "git", "add", "-A")
    run(target, "git", "commit", "-qm", "first run")
    return target


def test_every_promised_output_is_there(project):
    tables = {"runs.csv", "table1.csv", "table1.md", "tests.csv", "claims.csv", "claims.md"}
    tables |= {"l2x.csv", "l2x_runs.csv", "l2x_tests.csv", "l2x_digits.csv", "l2x_digits_runs.csv"}
    tables |= {"small_cnn.csv", "small_cnn_runs.csv", "small_cnn_tests.csv"}
    tables |= {"alternatives.csv", "alternatives_runs.csv", "alternatives_tests.csv"}
    tables |= {"sensitivity.csv", "sensitivity_runs.csv", "sensitivity_tests.csv"}
    tables |= {"sizes.csv", "sizes_runs.csv", "sizes_classes.csv", "sizes_bins.csv"}
    tables |= {"fidelity.csv", "fidelity_effects.csv", "fidelity_runs.csv"}
    tables |= {"table2.csv", "table2.md", "table2_tests.csv", "faithfulness.csv", "faithfulness_tests.csv"}
    tables |= {"faithfulness_metrics.csv", "faithfulness_per_image.csv.gz"}
    assert tables <= {path.name for path in (project / "reports/tables").iterdir()}
    explanations = project / "reports/figures/explanations/cluttered_digits"
    assert {path.name for path in explanations.iterdir()} == {"bla.png", "bla_t.png"}
    figures = {
        "figure3.svg",
        "figure3.png",
        "fidelity.png",
        "sizes.png",
        "small_cnn.png",
        "l2x.png",
        "sensitivity.png",
        "overview_cluttered_digits.png",
        *(f"{name}_cluttered_digits.png" for name in ("maps", "lime", "curves", "ranks", "cascade")),
    }
    assert figures <= {path.name for path in (project / "reports/figures").iterdir()}
    alternatives = {
        f"cluttered_digits_{name}.png" for name in ("bla", "concept_vector", "concept_vector_relu", "pointwise")
    }
    assert {path.name for path in (project / "reports/figures/alternatives").iterdir()} == {"runs.png", *alternatives}
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["cluttered_digits"].keys() == {"bl", "bla", "bla_t", "bl_plus"}
    assert metrics["cluttered_digits"]["bla"].keys() == {"accuracy", "loss", "explanation_size"}


def test_runs_csv_has_one_row_a_run_and_is_what_table_one_averages(project):
    runs = pd.read_csv(project / "reports/tables/runs.csv")
    wanted = ["dataset", "variant", "run", "seed", "accuracy", "loss", "soft_accuracy", "soft_loss", "explanation_size"]
    assert set(wanted) <= set(runs)
    assert runs.groupby("variant")["run"].apply(list).tolist() == [[0, 1, 2]] * 4
    assert runs["seed"].is_unique
    bl = runs[runs["variant"] == "bl"]
    assert bl[["soft_accuracy", "soft_loss", "explanation_size"]].isna().all(axis=None)
    table = pd.read_csv(project / "reports/tables/table1.csv").query("measure == 'loss'").set_index("variant")["mean"]
    means = runs.groupby("variant")["loss"].mean()
    pd.testing.assert_series_equal(table.sort_index(), means, check_names=False, rtol=1e-4)


def test_fidelity_crosses_its_choices_and_tests_them(project):
    runs = pd.read_csv(project / "reports/tables/fidelity_runs.csv")
    cells = runs.groupby(["normalisation", "stochastic_depth", "column"]).size()
    assert len(cells) == 2 * 2 * len(set(runs["column"]))
    assert set(cells) == {2}
    assert set(runs.loc[runs["stochastic_depth"] > 0, "draws"]) == {2}
    effects = pd.read_csv(project / "reports/tables/fidelity_effects.csv")
    assert {"normalisation", "stochastic_depth", "threshold rule", "head of BLA-PH"} < set(effects["choice"])
    assert effects["p_holm"].ge(effects["p"] - 1e-9).all()


def test_every_method_has_its_row_and_every_value_its_image(project):
    means = pd.read_csv(project / "reports/tables/faithfulness.csv")
    values = pd.read_csv(project / "reports/tables/faithfulness_per_image.csv.gz")
    assert set(means["method"]) == {"lime", "cam", "score_cam", "rise", "random", "bla", "bla_t", "mask"}
    again = values.groupby(["method", "metric"])["value"].agg(["mean", "count"])
    for row in means.itertuples():
        found = again.loc[(row.method, row.metric)]
        assert row.mean == pytest.approx(found["mean"], rel=1e-4, abs=1e-5)
        assert row.n == found["count"]
    cost = means[means["metric"] == "forwards"].set_index("method")
    assert cost.loc[["lime", "cam", "rise", "random", "bla"], "mean"].tolist() == [100, 1, 20, 0, 1]
    assert cost.loc[["lime", "cam", "score_cam", "rise"], "n"].tolist() == [6, 6, 4, 4]
    assert set(means.query("metric == 'deletion_black'")["n"]) == {4}
    assert means.query("method == 'random' and metric == 'randomised_network'")["mean"].item() == pytest.approx(1)
    two = pd.read_csv(project / "reports/tables/table2.csv")
    assert list(two["method"]) == ["lime", "cam", "grad_cam", "bla", "bla_t", "bla_t, after the threshold"]
    assert set(two["n_runs"]) == {3}


def test_one_more_explainer_makes_no_map_of_the_others_again(project, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    kept = {path.name: path.stat().st_mtime_ns for path in (copy / ".work").glob("maps-*")}
    assert len(kept) == 7
    edit_params(copy, explainers=["cam", "score_cam", "rise", "random", "edges"])
    assert "lime@cluttered_digits" not in stages(run(copy, "dvc", "repro", "maps@cluttered_digits"))
    after = {path.name: path.stat().st_mtime_ns for path in (copy / ".work").glob("maps-*")}
    assert {name: after.get(name) for name in kept} == kept
    assert len(after) == 8


def test_the_pages_read_offline_and_link_to_each_other(project):
    pages = {path.name: path.read_text() for path in (project / "reports/html").glob("*.html")}
    assert pages.keys() == {
        "index.html",
        "table1.html",
        "explanations.html",
        "faithfulness.html",
        "fidelity.html",
        "sensitivity.html",
        "small_cnn.html",
        "alternatives.html",
        "l2x.html",
    }
    for name, text in pages.items():
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text), name
        assert "@import" not in text, name
        assert "<script" not in text, name
        assert all(target in pages for target in re.findall(r'href="([^"#]+)"', text)), name
    assert "data:image/png" in pages["explanations.html"]


def test_nothing_runs_again_when_nothing_has_changed(project):
    output = run(project, "dvc", "repro")
    assert not stages(output)
    assert "Data and pipelines are up to date." in output


def test_a_fresh_clone_knows_whether_lock_code_settings_and_tables_belong_together(project, tmp_path):
    copy = tmp_path / "copy"
    run(tmp_path, "git", "clone", "-q", str(project), str(copy))
    up_to_date = "Data and pipelines are up to date."
    check = ("dvc", "repro", "--allow-missing", "--dry")
    assert up_to_date in run(copy, *check)
    for name in ("src/bla/method/equations.py", "pipeline/stages/tables.py", "params.yaml", "reports/tables/table1.md"):
        path = copy / name
        before = path.read_text()
        path.write_text(before + "\n# changed\n")
        done = subprocess.run(check, cwd=copy, env=ENV, capture_output=True, text=True, check=False)
        assert up_to_date not in done.stdout, name
        path.write_text(before)


def test_an_edited_threshold_reruns_its_variant_and_what_reads_it(project, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, symlinks=True)
    output = run(copy, "dvc", "exp", "run", "-S", "variant.bla_t.threshold_factor=0.5")
    assert stages(output) == {
        "settings", "explainer@cluttered_digits-bla_t", "gallery@cluttered_digits", "statistics", "tables", "figures",
        "maps@cluttered_digits", "faithfulness@cluttered_digits", "comparison",
        "reports", "sizes",
    }  # fmt: skip
    difference = json.loads(run(copy, "dvc", "metrics", "diff", "--json"))
    changed = [name for file in difference.values() for name in file]
    assert changed
    assert all(".bla_t." in name for name in changed)


def test_a_temporary_experiment_runs_its_own_code_and_shows_up_in_the_comparison(project):
    output = run(project, "dvc", "exp", "run", "--temp", "-n", "hot", "-S", "variant.bla.temperature=0.2")
    imported = set(re.findall(r"imported (.*)", output))
    assert imported
    assert all(".dvc/tmp/exps" in path for path in imported)
    assert not run(project, "git", "status", "--porcelain")
    shown = run(project, "dvc", "exp", "show", "--csv")
    table = pd.read_csv(io.StringIO(shown))
    hot = table[table["Experiment"] == "hot"].iloc[0]
    assert hot["variant.bla.temperature"] == 0.2
    for measure in ("accuracy", "loss", "explanation_size"):
        assert f"cluttered_digits.bla.{measure}" in table
    assert hot["cluttered_digits.bla.loss"] != table["cluttered_digits.bla.loss"].iloc[0]


def test_a_kill_in_the_middle_changes_no_byte_of_what_comes_out(project, tmp_path):
    target = "explainer@cluttered_digits-bla"
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for copy in (calm, killed):
        shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".work"))
        edit_params(copy, seed=1)
    run(calm, "dvc", "repro", target)
    for stage in ("backbone", "baseline"):
        process = subprocess.Popen(
            ["dvc", "repro", target], cwd=killed, env=ENV, start_new_session=True, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        for line in process.stdout:
            if line.startswith(f"> python -m pipeline.{stage}"):
                break
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(killed, "dvc", "repro", target)
    assert outputs(killed) == outputs(calm) != outputs(project)
