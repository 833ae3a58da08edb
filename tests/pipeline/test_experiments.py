"""`make compare` and the last step of `make sweep`, on the JSON of `dvc exp show`."""

import io
import json

import pandas as pd
import pytest

from bla.base.errors import BlaError
from bla.plotting.sweep import sweep_figure
from pipeline.run.experiments import Experiment, changed_settings, comparison, main, read_experiments, sweep_table


def state(name, accuracy, temperature=0.1, threshold=0.98, experiments=None, **more):
    """A revision as DVC prints it: BLA-T's accuracy, BL's is the same everywhere."""
    metrics = {
        "birds": {"bl": {"accuracy": 0.8}, "bla_t": {"accuracy": accuracy, "explanation_size": 50 * temperature}}
    }
    params = {"variant": {"bla_t": {"temperature": temperature, "threshold_factor": threshold}}, "runs": 20} | more
    data = {"metrics": {"reports/metrics.json": {"data": metrics}}, "params": {"params.yaml": {"data": params}}}
    return {"rev": "0" * 40, "name": name, "data": data, "experiments": experiments}


def shown(*experiments, workspace=None):
    rows = [{"revs": [row], "executor": None} for row in experiments]
    return json.dumps([workspace or state(None, 0.9), state("main", 0.9, experiments=rows)])


def test_changed_settings_come_first_and_equal_metrics_are_left_out():
    lines = comparison(read_experiments(shown(state("hot", 0.85, 0.2)))).splitlines()
    assert lines[:4] == ["changed settings", "experiment     temperature", "commit (main)  0.1", "hot            0.2"]
    assert "temperature is variant.bla_t.temperature" in lines
    place = lines.index("accuracy on birds")
    assert lines[place + 1].split() == ["experiment", "temperature", "BLA-T"]
    assert lines[place + 3].split() == ["hot", "0.2", "0.8500"]
    assert lines[lines.index("explanation size on birds") + 3].split() == ["hot", "0.2", "10.00"]


def test_the_workspace_is_shown_if_it_differs_from_the_commit():
    assert [e.name for e in read_experiments(shown())] == ["commit (main)"]
    changed = state(None, 0.7, 0.5)
    assert [e.name for e in read_experiments(shown(workspace=changed))] == ["workspace", "commit (main)"]


def test_no_line_is_longer_than_100_characters():
    settings = {f"a_long_setting_{number}": "x" * 50 for number in range(9)}
    metrics = {("birds", f"variant_number_{number}", "accuracy"): 0.5 for number in range(30)}
    other = dict.fromkeys(metrics, 0.6)
    changed = dict.fromkeys(settings, "y" * 50)
    text = comparison([Experiment("one", settings, metrics), Experiment("two", changed, other)])
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"variant_number_{number}" in text for number in range(30))


@pytest.mark.parametrize(
    ("settings", "short"),
    [
        (["variant.bla.temperature"], ["temperature is variant.bla.temperature"]),
        (["variant.bla.temperature", "variant.bla_t.temperature"], ["bla.temperature is variant.bla.temperature", "bla_t.temperature is variant.bla_t.temperature"]),
        (["runs", "small_cnn.runs"], ["small_cnn.runs"]),
    ],
)  # fmt: skip
def test_short_names_tell_settings_apart(settings, short):
    found = [Experiment(str(value), dict.fromkeys(settings, value), {}) for value in (1, 2)]
    assert changed_settings(found) == settings
    text = comparison(found)
    assert all(line in text for line in short)
    assert "no metric differs between 1, 2" in text


def test_a_running_or_failed_experiment_is_left_out():
    waiting = {"revs": None, "executor": None}
    failed = {"rev": "1" * 40, "name": "bad", "data": None, "error": {"msg": "x"}, "experiments": None}
    queued = {"revs": [state("next", 0.9)], "executor": {"state": "queued"}}
    running = {"revs": [state("now", 0.9)], "executor": {"state": "running"}}  # DVC shows the commit's metrics
    ended = {"revs": [state("old", 0.8)], "executor": {"state": "success"}}
    others = [waiting, {"revs": [failed], "executor": None}, queued, running, ended]
    text = json.dumps([state("main", 0.9, experiments=others)])
    assert [e.name for e in read_experiments(text)] == ["commit (main)", "old"]


@pytest.mark.parametrize(
    ("text", "part"), [("", "run it alone"), ("WARNING", "run it alone"), ("[]", "run make repro")]
)
def test_what_is_no_result_is_refused(text, part):
    with pytest.raises(BlaError, match=part):
        read_experiments(text)


def test_a_sweep_writes_table_and_figure_of_its_experiments_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = state("sweep-0.2-0.98", 0.85, 0.2), state("sweep-0.1-0.98", 0.9), state("other", 0.1, 9)
    monkeypatch.setattr("sys.stdin", io.StringIO(shown(*rows)))
    main("sweep")
    table = pd.read_csv("sweep/sweep.csv").query("measure == 'accuracy'")
    assert table[["temperature", "value"]].to_numpy().tolist() == [[0.1, 0.9], [0.2, 0.85]]  # equal settings once
    assert (tmp_path / "sweep/sweep.png").stat().st_size > 1000
    assert "other" not in (tmp_path / "sweep/sweep.txt").read_text()
    assert "sweep-0.2-0.98" in capsys.readouterr().out


def test_the_figure_has_a_line_per_threshold_and_a_panel_per_dataset_and_measure():
    found = [Experiment(f"{t}-{f}", {"variant.bla_t.temperature": t, "variant.bla_t.threshold_factor": f},
                        {(d, "bla_t", m): t * f for d in ("a", "b") for m in ("accuracy", "loss", "explanation_size")})
             for t in (0.2, 0.1) for f in (0.5, 0.98, 1.2)]  # fmt: skip
    figure = sweep_figure(sweep_table(found))
    assert len(figure.axes) == 2 * 3
    (low, *_) = figure.axes[0].lines
    assert low.get_xdata().tolist() == [0.1, 0.2]
    assert low.get_ydata().tolist() == pytest.approx([0.05, 0.1])
    assert {len(axis.lines) for axis in figure.axes} == {3}


def test_a_sweep_whose_experiments_belong_to_another_commit_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(shown(state("other", 0.1, 9))))
    with pytest.raises(BlaError, match="belong to the commit"):
        main("sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_without_bla_t_is_refused():
    with pytest.raises(BlaError, match="add it to `variants`"):
        sweep_table([Experiment("x", {}, {("birds", "bla", "accuracy"): 0.5})])
