"""`run.py judge`: verdicts on anybody's scores, and what is refused."""

import csv
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.records.score_table import Columns, read_score_tables
from analysis.text.judge_sentences import summary
from analysis.verdicts.judge import Question, judge
from analysis.verdicts.question_ledger import PLANNED, decide_with_ledger
from registry import InputError

HEADING = ["model", "loss", "seed", "patient", "image", "dice"]


def made(path, effects=(0.0, 0.0, -0.01), seeds=4, patients=8, images=2, sd=0.0006):
    """Scores with known truth: `effects` by model, two losses that are alike."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.003, patients)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEADING)
        for (n, effect), loss, seed in product(enumerate(effects), ("bce", "dice"), range(seeds)):
            shift = rng.normal(0, sd)
            for patient, image in product(range(patients), range(images)):
                value = 0.98 + effect + shift + difficulty[patient] + rng.normal(0, 0.001)
                table.writerow([f"net{n}", loss, seed, f"p{patient}", f"p{patient}_{image}", round(value, 6)])
    return path


FULL = ("--score", "dice", "--cell", "model", "loss", "--seed", "seed", "--group", "patient", "--image", "image")


@pytest.fixture
def table(tmp_path):
    return made(tmp_path / "scores.csv")


def judged(command, *words):
    code, shown, complaint = command("judge", *map(str, words), "--json", "-")
    assert code == 0, complaint
    return json.loads(shown)["datasets"]


def test_all_pairs_have_the_better_mean_first_and_the_known_answer(table, command):
    (found,) = judged(command, table, *FULL)
    assert len(found["comparisons"]) == 15 and set(found) >= {"best_set", "winner_by_seed", "detectable", "conditions"}
    assert all(one["difference"] >= 0 for one in found["comparisons"])
    by_pair = {(one["a"], one["b"]): one["verdict"] for one in found["comparisons"]}
    assert by_pair.get(("net0 + bce", "net2 + bce")) == "better"
    assert not {"net2 + bce", "net2 + dice"} & set(found["best_set"])


def test_few_groups_are_said_to_be_few(tmp_path, command):
    for patients in (3, 8):
        (found,) = judged(command, made(tmp_path / f"{patients}.csv", patients=patients), *FULL)
        said = any("it is hardly known how far others would differ" in line for line in found["conditions"])
        assert said == (patients < 8)


def test_one_that_is_excluded_without_a_clear_difference_is_explained(table):
    columns, question = Columns("dice", ("model", "loss"), seed="seed", group="patient", image="image"), Question()
    (found,) = judge(read_score_tables(table, columns), "patient", True, question)
    alike = [replace(pair, comparison=replace(pair.comparison, verdict="undecided")) for pair in found.pairs]
    assert "Whether one can be excluded" in " ".join(summary(replace(found, pairs=alike), question))
    assert "Whether one can be excluded" not in " ".join(summary(found, question))


def test_with_a_baseline_each_other_cell_minus_it(table, command):
    (found,) = judged(command, table, *FULL, "--baseline", "net0 + bce")
    assert [one["b"] for one in found["comparisons"]] == ["net0 + bce"] * 5
    assert {one["a"]: one["verdict"] for one in found["comparisons"]}["net2 + dice"] == "worse"


def test_lower_is_better_turns_the_verdicts(table, command):
    (found,) = judged(command, table, *FULL, "--lower-is-better")
    assert set(found["best_set"]) == {"net2 + bce", "net2 + dice"}


def test_seeds_alone_are_welch_for_this_test_set_only(table, command):
    frame = pd.read_csv(table)
    frame.groupby(["model", "seed"]).dice.mean().reset_index().to_csv(table, index=False)
    (found,) = judged(command, table, "--score", "dice", "--cell", "model", "--seed", "seed", "--baseline", "net0")
    assert any("this test set only" in condition for condition in found["conditions"])
    assert found["comparisons"][1]["verdict"] == "worse"


def test_without_seeds_it_is_a_paired_comparison_of_these_models(table, command):
    frame = pd.read_csv(table)
    frame[(frame.seed == 0) & (frame.loss == "bce")].to_csv(table, index=False)
    (found,) = judged(
        command,
        table,
        "--score",
        "dice",
        "--cell",
        "model",
        "--group",
        "patient",
        "--image",
        "image",
        "--baseline",
        "net0",
    )
    by_patient = frame[(frame.seed == 0) & (frame.loss == "bce")].groupby(["model", "patient"]).dice.mean()
    oracle = stats.ttest_rel(by_patient["net2"], by_patient["net0"])
    low, high = oracle.confidence_interval(0.975)  # Holm's first divisor: two comparisons
    worst = found["comparisons"][1]
    assert worst["difference"] == pytest.approx(float((by_patient["net2"] - by_patient["net0"]).mean()))
    assert (worst["low"], worst["high"]) == (pytest.approx(low), pytest.approx(high))
    assert any("these trained models only" in condition for condition in found["conditions"])


def test_one_seed_is_undecided_with_unbounded_ends(table, command):
    frame = pd.read_csv(table)
    frame[frame.seed == 0].to_csv(table, index=False)
    (found,) = judged(command, table, *FULL)
    assert {one["verdict"] for one in found["comparisons"]} == {"undecided"}
    assert all(one["low"] is None and one["high"] is None for one in found["comparisons"])
    assert any("One seed only" in condition for condition in found["conditions"])


def test_one_score_per_cell_is_no_evidence(tmp_path, command):
    (tmp_path / "s.csv").write_text("method,score\na,0.9\nb,0.8\n")
    (found,) = judged(command, tmp_path / "s.csv", "--score", "score", "--cell", "method")
    assert found["comparisons"][0]["verdict"] == "undecided" and found["comparisons"][0]["low"] is None


def test_a_wide_file_has_a_method_in_each_column(tmp_path, command):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"case": [f"c{n}" for n in range(30)], "ours": 0.9 + rng.normal(0, 0.01, 30)})
    frame.assign(theirs=frame.ours - 0.02 + rng.normal(0, 0.002, 30)).to_csv(tmp_path / "w.csv", index=False)
    (found,) = judged(command, tmp_path / "w.csv", "--wide", "theirs", "ours", "--image", "case")
    assert (found["comparisons"][0]["a"], found["comparisons"][0]["verdict"]) == ("ours", "better")


def test_scores_that_repeat_digit_for_digit_are_named(tmp_path, command):
    rows = "".join(
        f"{net},{seed},{0.5543 if net == 'a' or seed == 0 else 0.7 + seed / 100}\n" for net in "ab" for seed in range(3)
    )
    (tmp_path / "s.csv").write_text("net,seed,f1\n" + rows)
    code, shown, _ = command("judge", str(tmp_path / "s.csv"), "--score", "f1", "--cell", "net", "--seed", "seed")
    assert code == 0 and "0.5543 stands in 4 runs (a, b)" in shown


def test_several_data_sets_have_a_table_each_and_a_line_over_all(tmp_path, command):
    rng = np.random.default_rng(0)
    rows = [
        f"{d},{net},{s},{0.8 + 0.05 * (net == 'a') * (d == 'x') + rng.normal(0, 0.003):.5f}\n"
        for d, net, s in product("xy", "ab", range(5))
    ]
    (tmp_path / "s.csv").write_text("set,net,seed,f1\n" + "".join(rows))
    words = ("--score", "f1", "--cell", "net", "--seed", "seed", "--dataset", "set")
    found = judged(command, tmp_path / "s.csv", *words)
    assert [one["name"] for one in found] == ["x", "y"]
    code, shown, _ = command("judge", str(tmp_path / "s.csv"), *words)
    assert code == 0 and "First and second are separated in 1 of 2 data sets" in shown


def test_the_page_holds_every_sentence_and_needs_nothing_else(table, command, tmp_path):
    page = tmp_path / "page.html"
    assert command("judge", str(table), *FULL, "--html", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "net0 + bce is better than net2" in text and "http" not in text.replace("http-equiv", "").replace(
        "http://www.w3.org", ""
    )


def without_column(text):
    return text.replace("dice\n", "dcie\n", 1)


def without_rows(text):
    return text[: text.index("\n") + 1]


def with_word(text):
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:3], lines[3].rpartition(",")[0] + ",n/a\n", *lines[4:]])


def with_comma(text):
    lines = text.replace(",", ";").splitlines(keepends=True)
    return "".join([*lines[:3], lines[3].rpartition(";")[0] + ";0,8662\n", *lines[4:]])


def twice(text):
    return text + text.splitlines(keepends=True)[1]


def one_image_less(text):
    return "".join(text.splitlines(keepends=True)[:-1])


def one_cell(text):
    lines = text.splitlines(keepends=True)
    return lines[0] + "".join(line for line in lines if line.startswith("net0,bce"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_column, "no column 'dice' (did you mean 'dcie'?)"),
        (without_rows, "holds no rows"),
        (with_word, "row 4: the dice 'n/a' is no finite number"),
        (with_comma, "leave the row out: numbers take a decimal point, 0.8662, not a comma"),
        (twice, "hold two scores of the same thing"),
        (one_image_less, "has no score of p7 / p7_1"),
        (one_cell, "has one cell only, net0 + bce"),
        (lambda text: text.replace("\n", ",0.7\n").replace(",0.7\n", "\n", 1), "fields, and the heading has"),
        (lambda text: re.sub(r"0\.\d+$", "1e308", text, count=1, flags=re.MULTILINE), "'1e308' is too large"),
    ],
)
def test_a_wrong_table_ends_in_one_sentence(table, command, change, sentence):
    table.write_text(change(table.read_text()))
    code, shown, complaint = command("judge", str(table), *FULL)
    assert code == 2 and sentence in complaint and complaint.count("\n") == 1 and not shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--score", "dice"), "Name the columns"),
        (("--wide", "dice", "--cell", "model"), "leave out --score and --cell"),
        ((*FULL, "--baseline", "net9"), "no cell 'net9'"),
        ((*FULL, "--level", "95"), "--level takes a probability"),
        ((*FULL, "--ledger", "l.json"), "--ledger goes with --accept"),
        ((*FULL, "--accept", "net0 + bce", "net9"), "no cell 'net9'"),
    ],
)
def test_wrong_flags_end_in_one_sentence(table, command, words, sentence):
    code, _, complaint = command("judge", str(table), *words)
    assert code == 2 and sentence in complaint and complaint.count("\n") == 1


def test_columns_may_have_any_name(tmp_path, command):
    rng, path = np.random.default_rng(0), tmp_path / "odd.csv"
    rows = [f"{cell},{seed},{group},{rng.random():.3f}" for cell in "ab" for seed in "123" for group in "xy"]
    path.write_text("\n".join(["row,value,column,score text", *rows]) + "\n")
    words = ("--score", "score text", "--cell", "row", "--seed", "value", "--group", "column")
    code, shown, complaint = command("judge", str(path), *words)
    assert code == 0 and "3 seeds, 2 groups" in shown, complaint


def test_accept_writes_the_files_that_are_asked_for(table, command, tmp_path):
    words = ("--accept", "net2 + bce", "net0 + bce", "--json", tmp_path / "j.json", "--html", tmp_path / "h.html")
    assert command("judge", str(table), *FULL, *words)[0] == 0
    assert json.loads((tmp_path / "j.json").read_text())["datasets"] and (tmp_path / "h.html").exists()


def test_accept_exits_by_the_verdict(table, command):
    def code(*pair):
        return command("judge", str(table), *FULL, "--accept", *pair)[0]

    assert code("net2 + bce", "net0 + bce") == 0
    assert code("net0 + bce", "net2 + bce") == 3
    assert code("net0 + bce", "net1 + dice") == 4


def runs(rng, mean, seeds, first=0):
    return pd.DataFrame(rng.normal(mean, 1, (seeds, 1)), index=[str(first + n) for n in range(seeds)])


def test_a_ledger_screens_then_confirms_on_new_seeds_and_charges_that_alone(tmp_path):
    rng, path, question = np.random.default_rng(0), tmp_path / "ledger.json", Question(rope=0)
    base, first = runs(rng, 0, 6), runs(rng, 4, 4)
    asked = decide_with_ledger(("base", "c"), base, first, "seeds", question, path)
    assert asked.code == 4 and "more seeds" in asked.sentence
    again = decide_with_ledger(("base", "c"), base, first, "seeds", question, path)
    assert (again.code, again.sentence) == (asked.code, asked.sentence)
    both = pd.concat([first, runs(rng, 4, 5, first=4)])
    confirmed = decide_with_ledger(("base", "c"), base, both, "seeds", question, path)
    assert confirmed.code == 0 and f"Confirmation 1 of {PLANNED}" in confirmed.sentence
    assert decide_with_ledger(("base", "c"), base, both, "seeds", question, path).code == 0
    stages = [entry["stage"] for entry in json.loads(path.read_text())["questions"]]
    assert stages == ["screened", "confirmed"]


def test_the_same_scores_asked_in_the_other_direction_are_another_question(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "ledger.json"
    base, worse = runs(rng, 0, 5), runs(rng, -5, 5)
    upside_down = Question(higher_is_better=False)
    assert decide_with_ledger(("b", "c"), base, worse, "seeds", upside_down, path).code == 4  # promising
    assert decide_with_ledger(("b", "c"), base, worse, "seeds", Question(), path).code == 3


def test_a_ledger_behind_a_link_is_written_where_it_lies(tmp_path):
    rng, link = np.random.default_rng(0), tmp_path / "link.json"
    link.symlink_to(tmp_path / "ledger.json")
    decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, -2, 5), "seeds", Question(), link)
    assert link.is_symlink() and json.loads((tmp_path / "ledger.json").read_text())["questions"]
    for name in (".", "/"):
        with pytest.raises(InputError, match="is no file"):
            decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, 1, 5), "seeds", Question(), Path(name))


def test_a_candidate_that_is_not_promising_costs_nothing(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "ledger.json"
    found = decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, -2, 5), "seeds", Question(), path)
    assert found.code == 3 and "Nothing was charged" in found.sentence


def test_a_spent_ledger_accepts_nothing_more(tmp_path):
    rng, path, question = np.random.default_rng(0), tmp_path / "ledger.json", Question(rope=0)
    base = runs(rng, 0, 8)
    for n in range(PLANNED + 1):
        first = runs(rng, 5, 4)
        decide_with_ledger(("b", f"c{n}"), base, first, "seeds", question, path)
        last = decide_with_ledger(("b", f"c{n}"), base, pd.concat([first, runs(rng, 5, 5, 4)]), "seeds", question, path)
    assert last.code == 4 and "spent" in last.sentence


def test_a_damaged_ledger_and_one_of_another_level_are_refused(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "ledger.json"
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, 1, 5), "seeds", Question(), path)
    for damage in ('{"level": NaN, "questions": []}', '{"level": 0.95, "questions": [{"seeds": 5}]}', "[" * 100000):
        path.write_text(damage)
        with pytest.raises(InputError, match="cannot be read"):
            decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, 1, 5), "seeds", Question(), path)
    path.write_text('{"format": 1, "level": 0.9, "questions": []}')
    with pytest.raises(InputError, match=r"begun at level 0\.9"):
        decide_with_ledger(("b", "c"), runs(rng, 0, 5), runs(rng, 1, 5), "seeds", Question(), path)


def test_two_hundred_questions_without_an_improvement_accept_at_most_a_twentieth_of_ledgers(tmp_path):
    """The base is shared by all questions of a ledger; candidates are as good as it."""
    rng, accepted, ledgers = np.random.default_rng(3), 0, 12
    for ledger in range(ledgers):
        path, base = tmp_path / f"{ledger}.json", runs(rng, 0, 5)
        for n in range(60):
            first = runs(rng, 0, 5)
            found = decide_with_ledger(("b", f"c{n}"), base, first, "seeds", Question(rope=0), path)
            if found.code == 4:
                more = pd.concat([first, runs(rng, 0, 5, first=5)])
                found = decide_with_ledger(("b", f"c{n}"), base, more, "seeds", Question(rope=0), path)
            accepted += found.code == 0
    assert accepted <= 2


def test_published_scores_are_judged_by_data_set_and_seed(tmp_path):
    rows = [
        f"d,{net},{seed},{value}\n"
        for net, seed, value in (("r18", 0, 0.64), ("r18", 42, 0.643), ("r50", 0, 0.642), ("r50", 42, 0.64))
    ]
    (tmp_path / "s.csv").write_text("dataset,encoder,seed,f1\n" + "".join(rows))
    tables = read_score_tables(tmp_path / "s.csv", Columns("f1", ("encoder",), seed="seed", dataset="dataset"))
    (found,) = judge(tables, "", True, Question())
    assert found.winner_by_seed == {"0": "r50", "42": "r18"} and found.depends_on_seed and found.leaders_differ is False


@pytest.mark.parametrize(("scale", "limit"), [(1, 1), (100, 100), (1000, None)])
def test_an_interval_ends_at_the_largest_possible_difference(tmp_path, command, scale, limit):
    rows = [("a", 0, 0.9), ("a", 1, 0.3), ("b", 0, 0.2), ("b", 1, 0.8)]
    lines = [f"{cell},{seed},{scale * dice}\n" for cell, seed, dice in rows]
    (tmp_path / "scores.csv").write_text("cell,seed,dice\n" + "".join(lines))
    words = (tmp_path / "scores.csv", "--score", "dice", "--cell", "cell", "--seed", "seed")
    (found,) = judged(command, *words)
    (one,) = found["comparisons"]
    assert one["verdict"] == "undecided"
    if limit is None:
        assert one["low"] < -1000 and not any("cut" in line for line in found["conditions"])
        assert found["detectable"] > 1000
    else:
        assert (one["low"], one["high"]) == (-limit, limit) and found["detectable"] is None
        assert f"±{limit}" in found["conditions"][-1]
    code, shown, _ = command("judge", *words, "--accept", "a", "b")
    assert code == 4 and ("cut at" in shown) == (limit is not None)


def test_a_confirmation_says_the_level_of_its_own_interval(tmp_path):
    rng, path, question = np.random.default_rng(0), tmp_path / "ledger.json", Question(rope=0)
    base, first = runs(rng, 0, 6), runs(rng, 4, 4)
    assert decide_with_ledger(("base", "c"), base, first, "seeds", question, path).level == 0.95
    both = pd.concat([first, runs(rng, 4, 5, first=4)])
    once, again = (decide_with_ledger(("base", "c"), base, both, "seeds", question, path) for _ in range(2))
    assert once.level == again.level == pytest.approx(1 - 0.05 / PLANNED)
    assert once.comparison == again.comparison  # the second time it is read from the ledger


def test_a_message_counts_the_rows_as_an_editor_does(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("model,dice\n\na,0.9\n\nb,much\n")
    with pytest.raises(InputError, match="row 5: the dice 'much'"):
        read_score_tables(path, Columns("dice", ("model",)))


@pytest.mark.parametrize("column", ["seed", "patient", "image", "model"])
def test_a_row_without_a_name_is_refused(table, command, column):
    frame = pd.read_csv(table, dtype=str)
    frame.loc[3, column] = ""
    frame.loc[3, "loss"] = "" if column == "model" else frame.loc[3, "loss"]
    frame.to_csv(table, index=False)
    code, _, complaint = command("judge", str(table), *FULL)
    assert code == 2 and f"row 5: the column '{column}' is empty" in complaint and complaint.count("\n") == 1


def test_a_column_of_seeds_that_is_empty_is_to_be_left_out(table, command):
    pd.read_csv(table, dtype=str).assign(seed="").drop_duplicates(["model", "loss", "image"]).to_csv(table, index=False)
    code, _, complaint = command("judge", str(table), *FULL)
    assert code == 2 and "leave out --seed" in complaint


def test_seeds_that_are_whole_numbers_have_one_name(table, command):
    (before,) = judged(command, table, *FULL)
    frame = pd.read_csv(table, dtype=str)
    frame.loc[frame.model == "net1", "seed"] += ".0"
    frame.to_csv(table, index=False)
    assert judged(command, table, *FULL) == [before] and len(before["winner_by_seed"]) == 4


def test_two_equal_single_scores_are_undecided(tmp_path, command):
    (tmp_path / "s.csv").write_text("cell,dice\nA,0.91\nB,0.91\n")
    (found,) = judged(command, tmp_path / "s.csv", "--score", "dice", "--cell", "cell")
    (one,) = found["comparisons"]
    assert (one["verdict"], one["low"], one["units_to_decide"]) == ("undecided", None, None)


def test_a_ledger_takes_no_copy_of_a_seed_for_a_new_one(tmp_path):
    rng, path, question = np.random.default_rng(0), tmp_path / "ledger.json", Question(rope=0)
    base, first = (pd.DataFrame(rng.normal(mean, 0.001, (3, 4))) for mean in (0.98, 0.99))
    names = ("base", "c")
    assert decide_with_ledger(names, base, first, "seeds and groups", question, path).code == 4
    copied = pd.concat([first, first.set_axis([10, 11, 12])])
    again = decide_with_ledger(names, base, copied, "seeds and groups", question, path)
    assert again.code == 4 and "Promising" in again.sentence
    new = pd.concat([first, pd.DataFrame(rng.normal(0.99, 0.001, (3, 4)), index=[20, 21, 22])])
    assert decide_with_ledger(names, base, new, "seeds and groups", question, path).code == 0


def test_a_file_that_is_no_ledger_stays_as_it_is(tmp_path, table, command):
    mine = tmp_path / "mine.json"
    mine.write_text('{"level": 0.95, "questions": [], "own": 1}')
    words = (*FULL, "--accept", "net2 + bce", "net0 + bce", "--ledger", str(mine))
    code, _, complaint = command("judge", str(table), *words)
    assert code == 2 and "cannot be read" in complaint
    assert mine.read_text() == '{"level": 0.95, "questions": [], "own": 1}'
    assert {path.name for path in tmp_path.iterdir()} == {"mine.json", table.name}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cell,dice,dice\nA,0.9,0.8\nB,0.9,0.8\n", "has 2 columns 'dice'"),
        ("cell,dice\nA,0.9,0.8\nB,0.9\n", "row 2: 3 fields, and the heading has 2. Correct it."),
        ("cell,dice\nÄ,0.9\nB,0.9\n".encode("utf-16"), "is no CSV in UTF-8"),
    ],
)
def test_tables_that_are_damaged_end_in_one_sentence(tmp_path, command, text, sentence):
    (tmp_path / "s.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, complaint = command("judge", str(tmp_path / "s.csv"), "--score", "dice", "--cell", "cell")
    assert code == 2 and sentence in complaint and ".." not in complaint.replace(str(tmp_path), "")


def test_a_separator_within_quotes_is_none(tmp_path, command):
    (tmp_path / "s.csv").write_text('"a,b,c,d";cell;dice\nx;A;0.9\ny;B;0.8\n')
    assert judged(command, tmp_path / "s.csv", "--score", "dice", "--cell", "cell")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--score", "dice", "--cell", "model", "--seed", "model"), "The column 'model' is named twice"),
        ((*FULL, "--accept", "net0 + bce", "net1 + bce", "--baseline", "Z"), "leave out --baseline"),
        ((*FULL, "--accept", "net0 + bce", "net1 + bce", "--ledger", "x.json", "--json", "x.json"), "x.json"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(table, command, words, sentence, monkeypatch):
    monkeypatch.chdir(table.parent)
    code, _, complaint = command("judge", str(table), *words)
    assert code == 2 and sentence in complaint and not (table.parent / "x.json").exists()


def test_of_very_many_comparisons_the_first_are_told(tmp_path, command):
    rows = [f"c{n},{seed},{0.9 + n / 1000 + seed / 9000}" for n in range(20) for seed in range(3)]
    (tmp_path / "s.csv").write_text("\n".join(["cell,seed,dice", *rows]))
    words = ("--score", "dice", "--cell", "cell", "--seed", "seed")
    code, shown, _ = command("judge", str(tmp_path / "s.csv"), *words)
    assert code == 0 and "40 more comparisons: --json FILE has all" in shown
    assert len(judged(command, tmp_path / "s.csv", *words)[0]["comparisons"]) == 190


@pytest.mark.parametrize(
    ("factor", "flags", "told"),
    [
        (1, (), False),
        (1, ("--lower-is-better",), False),
        (100, (), True),
        (100, ("--lower-is-better",), True),
        (100, ("--rope", "0.5"), False),
    ],
)
def test_the_default_margin_is_questioned_where_scores_are_not_from_0_to_1(tmp_path, command, factor, flags, told):
    table = tmp_path / "scores.csv"
    rows = [f"{cell},{image},{factor * value}" for image in range(9) for cell, value in (("a", 0.9), ("b", 0.8))]
    table.write_text("\n".join(["cell,image,dice", *rows]))
    (found,) = judged(command, table, "--score", "dice", "--cell", "cell", "--image", "image", *flags)
    assert any("These scores are not from 0 to 1" in line for line in found["conditions"]) == told


def test_without_seeds_nothing_is_printed_of_seeds_and_without_a_verdict_no_possible_best(tmp_path, command):
    table = tmp_path / "scores.csv"
    table.write_text("cell,image,dice\na,1,0.9\nb,1,0.8\na,2,0.8\nb,2,0.75\n")
    _, shown, _ = command("judge", table, "--score", "dice", "--cell", "cell", "--image", "image")
    assert "possible best" in shown and "SD over seeds" not in shown
    table.write_text("cell,dice\na,0.9\nb,0.8\n")
    _, shown, _ = command("judge", table, "--score", "dice", "--cell", "cell")
    assert "no verdict" in shown and "possible best" not in shown and "excluded as the best" not in shown
    command("judge", table, "--score", "dice", "--cell", "cell", "--html", tmp_path / "page.html")
    assert "<th>" in (page := (tmp_path / "page.html").read_text()) and "possible best" not in page


def test_a_flag_is_not_taken_for_a_file(table, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, complaint = command("judge", table, *FULL, "--json", "--lower-is-better")
    assert code == 2 and "--json takes a file or -" in complaint and not list(tmp_path.glob("--*"))


def test_cells_whose_joined_names_agree_are_refused_and_blanks_around_names_are_not_part_of_them(tmp_path, command):
    rows = [("a", "b + c", 0, 0.5), ("a", "b + c", 1, 0.6), ("a + b", "c", 2, 0.9), ("a + b", "c", 3, 0.8)]
    table = tmp_path / "scores.csv"
    table.write_text("m,l,seed,dice\n" + "\n".join(",".join(map(str, row)) for row in rows))
    code, _, complaint = command("judge", table, "--score", "dice", "--cell", "m", "l", "--seed", "seed")
    assert code == 2 and "joined to one name, 'a + b + c'" in complaint
    rows = [(cell, seed, 0.5 + 0.1 * (cell[0] == "a") + seed / 100) for seed in range(3) for cell in ("a", "b ", "b")]
    table.write_text("m,seed,dice\n" + "\n".join(f"{m if s else m.strip()},{s},{d}" for m, s, d in rows if m != "b"))
    (found,) = judged(command, table, "--score", "dice", "--cell", "m", "--seed", "seed")
    assert set(found["means"]) == {"a", "b"}


def test_a_table_is_read_as_text_whatever_its_name_ends_in(tmp_path, command):
    for name in ("scores.zip", "scores.csv.xz", "scores.tar"):
        (tmp_path / name).write_text("m,dice\na,0.5\nb,0.6\n")
        (found,) = judged(command, tmp_path / name, "--score", "dice", "--cell", "m")
        assert set(found["means"]) == {"a", "b"}


@pytest.mark.parametrize(
    "change",
    [{"exit": 0}, {"exit": 77}, {"seeds": [[1]]}, {"rows": [{}]}, {"rows": 5}, {"error": 0}, {"stage": "trusted"}],
    ids=str,
)
def test_an_edited_ledger_is_refused(tmp_path, change):
    """Above all one that claims an acceptance which no confirmation gave."""
    rng, path = np.random.default_rng(0), tmp_path / "ledger.json"
    base, candidate = runs(rng, 0, 5), runs(rng, 1, 5)
    decide_with_ledger(("b", "c"), base, candidate, "seeds", Question(), path)
    ledger = json.loads(path.read_text())
    assert ledger["questions"][0]["stage"] == "screened"
    ledger["questions"][0] |= change
    path.write_text(json.dumps(ledger))
    with pytest.raises(InputError, match="cannot be read"):
        decide_with_ledger(("b", "c"), base, candidate, "seeds", Question(), path)
