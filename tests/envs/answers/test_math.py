"""Mathematics in one step: rewards against worked cases, grading, templates, data with malformed rows."""

from __future__ import annotations

import gzip
import json
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragen_lite.envs.answers.arithmetic import Arithmetic, Multiplication, whole_number
from ragen_lite.envs.answers.math import data as math_data
from ragen_lite.envs.answers.math import grading
from ragen_lite.envs.answers.math.data import BadRow, read_row
from ragen_lite.envs.answers.math.numbers import bare, number
from ragen_lite.envs.answers.math.task import Math
from ragen_lite.envs.answers.rewards.attempt import Attempt
from ragen_lite.envs.answers.rewards.lengths import cosine, kimi_lengths, overlong, repetition
from ragen_lite.envs.answers.rewards.table import PRESETS, REWARDS, weights_of
from ragen_lite.envs.answers.templates import TEMPLATES, last_said
from ragen_lite.envs.dialogue import Dialogue


def attempt(reply: str, gold: str = "4", answer: str | None = None) -> Attempt:
    return Attempt(reply, (gold,), answer, grading.grade)


DEMO = "<reasoning>\n2 and 2\n</reasoning>\n<answer>\n4\n</answer>\n"


@pytest.mark.parametrize(
    ("name", "reply", "value"),
    [
        # open-r1
        ("format", "<think>\nsome\n</think>\n<answer>\n4\n</answer>", 1.0),
        ("format", "<think>some</think><answer>4</answer>", 0.0),
        ("format", "<think>\n" + "a " * 50_000 + "\n</think>\n<answer>\n4\n</answer>", 1.0),
        ("format", "<think>\nsome\n</think>\n<answer>\n4\n</answer> more", 0.0),
        ("format", "<answer>\n4\n</answer>\n<think>\nsome\n</think>", 0.0),
        ("tag_count", "<think>\nsome\n</think>\n<answer>\n4\n</answer>", 1.0),
        ("tag_count", "<think>\nsome\n</think>\n4", 0.5),
        ("tag_count", "<think>\n<think>\nsome", 0.0),
        ("reasoning_steps", "Step 1: a\nStep 2: b\nStep 3: c", 1.0),
        ("reasoning_steps", "First, a", 1 / 3),
        ("reasoning_steps", "nothing here", 0.0),
        ("repetition", "a b c d e", 0.0),
        ("repetition", "a b c a b c a b c", -(1 - 3 / 7)),
        ("repetition", "a b", 0.0),
        # grpo_demo
        ("gsm8k_correctness", DEMO, 2.0),
        ("gsm8k_correctness", "<answer>5</answer>", 0.0),
        ("gsm8k_integer", DEMO, 0.5),
        ("gsm8k_integer", "<answer>4.0</answer>", 0.0),
        ("gsm8k_integer", "<answer>٤</answer>", 0.0),
        ("gsm8k_strict_format", DEMO, 0.5),
        ("gsm8k_strict_format", DEMO + "and more", 0.0),
        (
            "gsm8k_strict_format",
            "<reasoning>\n</reasoning>\n<answer>\n4\n</answer>\n",
            0.0,
        ),  # no line for a thought
        ("gsm8k_soft_format", "<reasoning>a\nb</reasoning> <answer>4</answer> more", 0.5),
        ("gsm8k_xml_count", DEMO, 0.5),
        ("gsm8k_xml_count", DEMO + "xx", 0.5 - 0.004),
    ],
)
def test_format_rewards(name: str, reply: str, value: float) -> None:
    assert REWARDS[name](attempt(reply)) == pytest.approx(value)


def test_a_gold_that_cannot_be_read_has_no_accuracy_even_without_an_answer() -> None:
    for name in ("accuracy", "length", "cosine", "simplerl"):
        answer = r"\\boxed{4}" if name == "simplerl" else "4"
        assert REWARDS[name](attempt(answer, gold="", answer="4")) is None
    assert REWARDS["accuracy"](attempt("4", gold="", answer=None)) is None
    assert REWARDS["accuracy"](attempt("4", gold="0", answer=None)) == 0.0
    assert REWARDS["accuracy"](attempt("4", gold="0", answer="")) == 0.0


def test_rewards_of_length() -> None:
    right, wrong = attempt("x" * 1000, "4", "4"), attempt("x" * 1000, "4", "5")
    assert cosine(right) == pytest.approx(0.5) and cosine(attempt("", "4", "4")) == pytest.approx(
        1.0
    )
    assert cosine(wrong) == pytest.approx(-0.5) and cosine(attempt("", "4", "5")) == pytest.approx(
        0.0
    )
    assert cosine(attempt("x" * 500, "4", "4")) == pytest.approx(0.75)
    assert kimi_lengths([10, 20, 30], [True, False, False], 10, 30) == [0.5, 0.0, -0.5]
    assert kimi_lengths([5, 5], [True, False], 5, 5) == [0.0, 0.0]
    assert [overlong(attempt("x" * n), 100, 50) for n in (50, 75, 100, 200)] == [
        0.0,
        -0.5,
        -1.0,
        -1.0,
    ]
    assert repetition(attempt("a a a a"), 2) == pytest.approx(-2 / 3)


def test_simplerl_and_composition() -> None:
    assert REWARDS["simplerl"](attempt("\\boxed{4}", "4", "4")) == 1.0
    assert REWARDS["simplerl"](attempt("\\boxed{5}", "4", "5")) == -0.5
    assert REWARDS["simplerl"](attempt("4", "4", "4")) == -1.0
    env = Dialogue(Math(template="open_r1", reward={"accuracy": 2.0, "tag_count": 0.5}))
    env.reset(seed=0)
    gold = env.unwrapped.row.golds[0]
    _, reward, terminated, _, info = env.step(f"<think>\nx\n</think>\n<answer>\n{gold}\n</answer>")
    assert (
        reward == 2.5
        and terminated
        and info["rewards"] == {"accuracy": 1.0, "tag_count": 1.0}
        and info["success"]
    )
    assert set(PRESETS["gsm8k"]) <= set(REWARDS) and len(PRESETS["gsm8k"]) == 5
    with pytest.raises(ValueError, match="unknown reward 'acuracy'"):
        weights_of({"acuracy": 1})
    with pytest.raises(ValueError, match="at least one"):
        weights_of({})
    with pytest.raises(ValueError, match="template=qwen_boxed"):
        Math(reward="simplerl")


@pytest.mark.parametrize(
    ("template", "reward", "most"),
    [("open_r1", "open_r1", 3.0), ("gsm8k", "gsm8k", 4.0), ("qwen_boxed", "simplerl", 1.0)],
)
def test_who_keeps_to_the_template_earns_all_of_its_rewards(
    template: str, reward: str, most: float
) -> None:
    env = Dialogue(Math(template=template, reward=reward))
    env.reset(seed=0)
    task = env.unwrapped
    _, earned, _, _, info = env.step(task.template.write("some thought", task.row.golds[0]))
    assert earned == pytest.approx(most) and info["success"]


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("1,200", "1200", True), ("0.50", "1/2", True), ("$5", "5", True), ("5.", "5", True), ("-3", "3", False),
        ("", "3", False), ("3", "", None), ("1/0", "0", False), ("9" * 2000, "9", False), ("1_0", "10", False), ("١", "1", False),
    ],
)  # fmt: skip
def test_plain_numbers_are_graded_exactly(answer: str, gold: str, verdict: bool | None) -> None:
    assert grading.grade(answer, gold) is verdict


def test_math_verify_grades_the_rest() -> None:
    pytest.importorskip("math_verify")
    assert (
        grading.grade("\\frac{1}{2}", "0.5")
        and grading.grade("2\\sqrt{2}", "\\sqrt{8}")
        and grading.grade("x=3", "3")
    )
    assert (
        grading.grade("(2,1)", "(1,2)") is False and grading.grade("\\frac{1}{3}", "0.5") is False
    )
    hedges = (
        *(
            r"41\cup 42",
            r"1\cap 42",
            r"41\lor 42",
            "43=42",
            "41 or 42",
            "41, 42",
            r"42\pm 1",
            "1 & 42",
            "1 | 42",
        ),
        *(
            r"1 \mid 42",
            r"1 \\ 42",
            r"1 \to 42",
            r"1 \Rightarrow 42",
            r"1 \iff 42",
            "< 42",
            r"\neg 42",
            "41 42",
        ),
        *("either 41 or 42", "41 maybe 42", r"41\text{ or }42", "a=41, b=42", r"x=41 y=42"),
    )
    assert [hedge for hedge in hedges if grading.grade(hedge, "42") is not False] == []
    roots = (
        r"\sqrt{2}=\sqrt{3}",
        r"\sqrt{2} & \sqrt{3}",
        r"\sqrt{2}, \sqrt{3}",
        r"x=\sqrt{2}, x=\sqrt{3}",
    )
    assert [hedge for hedge in roots if grading.grade(hedge, r"\sqrt{3}") is not False] == []


def test_ways_of_writing_the_same() -> None:
    pytest.importorskip("math_verify")
    same = (
        *(
            (r"12\text{ cm}", "12"),
            (r"12\,\text{cm}", "12"),
            (r"12\ \mathrm{cm}", "12"),
            (r"12\text{ cm}^2", "12"),
        ),
        *(
            ("12 cm", "12"),
            (r"1{,}200", "1200"),
            (r"10,\!000", "10000"),
            (r"1\,200", "1200"),
            (r"\theta=4", "4"),
        ),
        *(
            ("$x = 4$", "4"),
            (r"2\cdot 2", "4"),
            (r"\sqrt{16}", "4"),
            ("x=1, x=2", "1,2"),
            (r"x\in(1,2)", "(1,2)"),
        ),
        *(
            (r"x = 1 \text{ or } x = 2", "1,2"),
            ("f(x)=x^2", "x^2"),
            ("y=2x+1", "y=2x+1"),
            ("|x|", "|x|"),
        ),
    )
    assert [pair for pair in same if grading.grade(*pair) is not True] == []


@pytest.mark.timeout(20)
def test_long_runs_of_the_same_sign_are_judged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        grading, "available", lambda: False
    )  # what comes before math-verify, by itself
    for run in (" ", "\\ ", "1 ", "a", "1a", "\\a", "x=", "\\text{", "{,}", "\\,"):
        assert grading.grade(f"1{run * (900 // len(run))}x", "42") is False


RIGHT = [
    ("1.24e-8", r"1.24 \times 10^{-8}"), (r"1.24\times10^{-8}", "1.24e-08"), ("0.00001", "1e-05"),
    (r"\$1,200", "1200"), ("x=1,200", "1200"), ("$1,200$", "1200"), ("1,200 cm", "1200"),
    (r"\$1{,}200", "1200"), (r"\boxed{1,200}", "1200"), (r"\boxed{x=6}", "6"),
    ("60 miles per hour", "60"), (r"9.8\text{ m/s}^2", "9.8"),
    ("18 dollars", "18"), ("18 eggs", "18"), ("18 apples", "18"), (r"$6\text{ apples}$", "6"),
    (r"\log_2 8", "3"), (r"\frac 1 2", "0.5"), ("25%", r"25\%"), ("90°", "90"), ("90", r"90^\circ"),
    ("A.", "A"), ("(1,2).", "(1,2)"), ("**73**", "73"), (r"\text{13}", "13"), ("9", "9 (apples)"),
    ("YES", "Yes"), ("8/3", "2 2/3"), (r"2\frac{2}{3}", "8/3"), (r"2\frac23", "2 2/3"),
    ("6,000,000", r"6\text{ million}"), ("72", "6 dozen"), ("ba", "ab"), (r"\text{yes}", "Yes"),
    (r"1,3,\ldots,2n-1", r"1, 3, \ldots, 2n-1"), ("0.333333", r"\frac13 \cdot 0.999999"),
]  # fmt: skip
WRONG = [
    ("Army", "Mary"), ("on", "no"), ("felt", "left"), ("May", "Amy"), ("Celia", "Alice"),
    (r"\frac1{2^{98}}", r"\frac1{2^{99}}"), (r"6.63\times10^{-34}", r"1.6\times10^{-19}"),
    ("0.0", r"1.2\times10^{-8}"), ("4/3", "2 2/3"), (r"1,3,5,\ldots,2n-1", r"1,2,\ldots,n"),
    (r"6\text{ million}", "6"), (r"6\text{ dozen}", "6"), (r"6\mathrm{k}", "6"), ("6 halves", "6"),
    ("18 or more", "18"), ("5 factorial", "5"), ("6 percent", "6"), ("12 at most", "12"),
    ("6 per cent", "6"), (r"\(5\) or \(6\)", "5"), ("4 to 5", "4"), ("1e5", "1e6"), ("22/3", "2 2/3"), (r"\pi\cdot10^{-9}", r"2\pi\cdot10^{-9}"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), RIGHT)
def test_a_right_answer_however_it_is_dressed(answer: str, gold: str) -> None:
    pytest.importorskip("math_verify")
    assert grading.grade(answer, gold) is True


@pytest.mark.parametrize(("answer", "gold"), WRONG)
def test_a_wrong_answer_however_close(answer: str, gold: str) -> None:
    pytest.importorskip("math_verify")
    assert grading.grade(answer, gold) is False


@pytest.mark.timeout(20)
@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("1 ,.{}$\\ax=+-/^°()*e"), max_size=200))
def test_any_text_is_a_number_or_none(text: str) -> None:
    value = number(bare(text))
    assert value is None or isinstance(value, Fraction)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(0, 8))
def test_a_number_in_any_form_is_itself(whole: int, places: int) -> None:
    value = Fraction(whole, 10**places)
    forms = (
        f"{whole}e-{places}",
        rf"{whole}\times 10^{{-{places}}}",
        f"{whole}/{10**places}",
        f"${whole}/{10**places}$",
    )
    assert {number(bare(form)) for form in forms} == {value}
    assert number(f"{whole:,}") == whole


def test_any_of_several_golds() -> None:
    pytest.importorskip("math_verify")
    env = Math(template="qwen_boxed")
    env.reset(seed=0)
    env._source = ("a file", None, "skip", None, None)
    env.row = math_data.Row("?", ("\\{1,2\\}", "\\frac{\\pi}{2}"))
    assert env.step("so \\boxed{\\pi/2}")[1] == 1.0  # any of several golds


def test_an_answer_that_takes_for_ever_is_ended_and_wrong() -> None:
    pytest.importorskip("math_verify")
    grading.grade("\\frac{2}{4}", "0.5")  # the process is there
    began = time.perf_counter()
    assert grading.grade("9^{9^{9^{9}}}", "3^{2}", seconds=1.0) is False
    assert time.perf_counter() - began < 10
    assert grading.grade("\\frac{3}{6}", "0.5")  # a new one answers


@pytest.mark.parametrize(
    ("template", "reply", "answer"),
    [
        ("r1", "<think>a</think><answer>1</answer> <answer> 2 </answer>", "2"),
        ("r1", "<answer>2", None),
        ("qwen_boxed", "\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("qwen_boxed", "\\boxed{1", None),
        ("abel", "so 3 + 4 = 7. The answer is $7$.", "7"),
        ("abel", "the answer is 3.5", "3.5"),
        ("none", "first 3, then 8!", "8"),
        ("none", "nothing", None),
    ],
)
def test_templates_read_answers(template: str, reply: str, answer: str | None) -> None:
    assert TEMPLATES[template].read(reply) == answer
    assert last_said("\\boxed{5} but the answer is 6") == "5"


def test_rows() -> None:
    assert read_row({"question": "q", "answer": "so\n#### 1,234"}).golds == ("1234",)
    assert read_row({"problem": "q", "solution": "x \\boxed{\\frac12}."}).golds == ("\\frac12",)
    assert read_row({"prompt": "q", "target": ["1", 2]}).golds == ("1", "2")
    assert read_row({"frage": "q", "antwort": 3}, "frage", "antwort").golds == ("3",)
    for bad in ({"question": "q"}, {"answer": "1"}, {"question": "", "answer": "1"}, {"question": 1, "answer": "1"},
                {"question": "q", "answer": ""}, {"question": "q", "answer": {}}, {"question": "q", "answer": []}, [1]):  # fmt: skip
        with pytest.raises(BadRow):
            read_row(bad)


def rows(path: Path, count: int = 60) -> Path:
    good = [
        json.dumps({"question": f"What is {i} + {i}?", "answer": str(2 * i)}, ensure_ascii=False)
        for i in range(count)
    ]
    path.write_text(
        "\n".join(
            [
                good[0],
                "{broken",
                '{"question": "no answer"}',
                *good[1:],
                '{"question": "π?", "answer": "3"}',
            ]
        )
    )
    return path


def test_malformed_rows_are_counted_and_named(tmp_path: Path) -> None:
    path = rows(tmp_path / "data.jsonl")
    with pytest.warns(
        UserWarning, match=r"2 of 63 rows are malformed: line 2: no JSON .*; line 3: no column"
    ):
        env = Math(data=str(path))
    seen = {
        split: {env.reset(seed=s, options={"split": split})[0] for s in range(200)}
        for split in ("train", "val", "test")
    }
    assert not seen["train"] & seen["test"] and sum(map(len, seen.values())) > 50
    (tmp_path / "odd.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question": "q", "answer": 1}\n'
        + b"[" * 200_000
        + b'\n{"question": "\xe9", "answer": 1}\n'
        b'{"question": "\\ud800", "answer": 1}\n{"question": "q", "answer": NaN}\n'
    )
    with pytest.warns(
        UserWarning, match=r"4 of 5 rows are malformed: line 2: .*line 3: .*line 4: .*line 5: "
    ):
        Math(data=str(tmp_path / "odd.jsonl"))
    with pytest.raises(ValueError, match="line 2: no JSON"):
        Math(data=str(path), bad_rows="refuse")
    with pytest.raises(ValueError, match="no such file"):
        Math(data=str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="no row"):
        Math(data=str(tmp_path / "empty.jsonl"))


def test_parquet_and_a_hub_data_set_by_the_same_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    made = datasets.Dataset.from_list(
        [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(50)]
    )
    made.to_parquet(str(tmp_path / "data.parquet"))
    env = Math(data=str(tmp_path / "data.parquet"))
    env.reset(seed=0)
    assert env.row.golds[0].isdigit()

    def load_dataset(name: str, config: str | None) -> dict[str, list[dict[str, str]]]:
        assert (name, config) == ("openai/gsm8k", "main")
        return {
            "train": [{"question": f"train {i}", "answer": f"#### {i}"} for i in range(50)],
            "test": [
                {"question": "train 7", "answer": "#### 7"},
                {"question": "test", "answer": "#### 1"},
            ],
        }

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    math_data.load.cache_clear()
    parts = math_data.load("gsm8k", None, "skip", None, None)
    assert [row.question for row in parts["test"]] == ["train 7", "test"]
    assert "train 7" not in [row.question for row in (*parts["train"], *parts["val"])]
    assert len(parts["train"]) + len(parts["val"]) == 49
    math_data.load.cache_clear()


def test_arithmetic_is_tinyzeros() -> None:
    assert [whole_number(t) for t in ("12", " -3 ", "+4", "1_0", "١", "1.0", "", "--1")] == [
        12,
        -3,
        4,
        *[None] * 5,
    ]
    env = Multiplication(digits=3)
    for seed in range(50):
        env.reset(seed=seed)
        assert 0 <= env.a <= 999 and 0 <= env.b <= 999 and env.answer == env.a * env.b
    right = str(env.answer)
    assert (
        env.step(right)[1] == 1.0 and env.step("-1")[1] == 0.1 and env.step(f"{right}.0")[1] == 0.0
    )
    assert Arithmetic(reward="strict").reset(seed=0)[0].startswith("What is ")
    for options in ({"digits": 0}, {"operators": "/"}, {"reward": "x"}):
        with pytest.raises(ValueError):
            Arithmetic(**options)  # type: ignore[arg-type]


def test_math_is_made_by_name() -> None:
    env = gym.make("ragen_lite/Math-v0", template="abel")
    text, _ = env.reset(seed=0)
    assert text.startswith("Question:\n") and text.endswith("Let's think step by step.")


@pytest.mark.parametrize(
    ("record", "gold", "solution"),
    [
        ({"question": "q", "answer": "so\n#### (3, 4)"}, "(3, 4)", "so"),
        ({"question": "q", "answer": "so\n#### [0,1)"}, "[0,1)", "so"),
        ({"question": "q", "answer": "so\n#### $1,234.50"}, "1234.50", "so"),
        (
            {"query": "q", "response": "13 * 20 = 260. The answer is: 260"},
            "260",
            "13 * 20 = 260. The answer is: 260",
        ),
        ({"question": "q", "answer": "7", "solution": "3 + 4 = 7"}, "7", "3 + 4 = 7"),
    ],
)
def test_a_gold_is_taken_whole_with_its_solution(
    record: dict[str, str], gold: str, solution: str
) -> None:
    assert read_row(record) == math_data.Row("q", (gold,), solution)


def test_a_proof_is_no_gold() -> None:
    for proof in ({"problem": "q", "solution": "By 4."}, {"problem": "q", "answer": "So. " * 99}):
        with pytest.raises(BadRow, match="has no answer in it"):
            read_row(proof)


ROWS = [{"question": "1+1?", "answer": "2"}, {"question": 'é, "2"?', "answer": "3"}]
LINES = "\n".join(map(json.dumps, ROWS))
TABLE = 'question,answer\n1+1?,2\n"é, ""2""?",3\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", LINES), ("a.JSONL", "\ufeff" + LINES + "\n\n"), ("a.json", json.dumps(ROWS)),
        ("a.b.json", json.dumps({"version": 1, "data": ROWS})), ("a.csv", TABLE),
        ("a.csv", "\ufeff" + TABLE), ("a.jsonl.gz", LINES), ("a.json.gz", json.dumps(ROWS)),
    ],
)  # fmt: skip
def test_files_of_every_form(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    parts = math_data.load(str(path), None, "refuse", None, None)
    found = {(row.question, row.golds) for rows in parts.values() for row in rows}
    assert found == {("1+1?", ("2",)), ('é, "2"?', ("3",))}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"1", r"give a file of the form .jsonl, .json, .csv \(each also with .gz\)"),
        ("a.json", b"{}", "no .json file .a list of objects is needed"),
        ("a.json", b"[" * 100_000, "no .json file"),
        ("a.csv", b"question,answer\n\xff,2", "no .csv file"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "no .jsonl file"),
        ("a.jsonl.gz", LINES.encode(), "no .jsonl file .*[Nn]ot a gzipped"),
        ("a.jsonl", b"\xff\n[]", "2 of 2 rows are malformed: line 1: no JSON"),
    ],
)
def test_files_that_are_not_what_they_say(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        math_data.load(str(tmp_path / name), None, "skip", None, None)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(json_values, st.fixed_dictionaries({"question": json_values, "answer": json_values}))
)
def test_a_record_of_any_shape_is_a_row_or_bad(record: Any) -> None:
    try:
        row = read_row(record)
    except BadRow:
        return
    assert row.question and all(row.golds)
    row.question.encode()
