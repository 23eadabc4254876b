from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import FilterSyntaxError
from runlake.query.grammar import (
    Absence,
    Both,
    Comparison,
    Either,
    Field,
    Membership,
    Node,
    Not,
    Order,
    Value,
    parse_filter,
    parse_order,
)


@pytest.mark.parametrize(
    ("text", "entity", "key", "statistic"),
    [
        ("metrics.acc = 1", "metric", "acc", "last"),
        ("metric.val/acc = 1", "metric", "val/acc", "last"),
        ("METRICS.f1-score = 1", "metric", "f1-score", "last"),
        ("metrics.loss.min = 1", "metric", "loss", "min"),
        ("metrics.a.b.MAX = 1", "metric", "a.b", "max"),
        ("metrics.min = 1", "metric", "min", "last"),
        ('metrics."loss.min" = 1', "metric", "loss.min", "last"),
        ('metrics."a b".mean = 1', "metric", "a b", "mean"),
        ("metrics.`a``b` = 1", "metric", "a`b", "last"),
        ("params.kernel.name = 1", "param", "kernel.name", "last"),
        ("parameters.lr.min = 1", "param", "lr.min", "last"),
        ("`params`.`1st` = 1", "param", "1st", "last"),
        ("tag.mlflow.runName = 1", "tag", "mlflow.runName", "last"),
        ("tags.größe = 1", "tag", "größe", "last"),
        ("attributes.status = 1", "attribute", "status", "last"),
        ("attr.`Run name` = 1", "attribute", "Run name", "last"),
        ("run.start_time = 1", "attribute", "start_time", "last"),
        ("start_time = 1", "attribute", "start_time", "last"),
        ("metrics.'a b' = 1", "metric", "a b", "last"),
        ("`metrics`.`a.min` = 1", "metric", "a.min", "last"),
        ("dataset.name = 1", "dataset", "name", "last"),
        ("Datasets.`digest` = 1", "dataset", "digest", "last"),
        ("tags.order = 1", "tag", "order", "last"),
        ("params.1st = 1", "param", "1st", "last"),
        ('"Run name" = 1', "attribute", "Run name", "last"),
    ],
)
def test_a_field_is_read_as_mlflow_reads_it(
    text: str, entity: str, key: str, statistic: str
) -> None:
    tree = parse_filter(text)
    assert isinstance(tree, Comparison)
    assert (tree.field.entity, tree.field.key, tree.field.statistic) == (entity, key, statistic)


A = Comparison(Field("metric", "a", at=0), ">", Value(1.0, 12))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'x'", "x"),
        ('"x"', "x"),
        ("'it''s'", "it's"),
        ("''", ""),
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("1e400", float("inf")),
    ],
)
def test_a_value_is_a_number_or_a_text_in_quotes(text: str, value: object) -> None:
    tree = parse_filter(f"tags.a = {text}")
    assert isinstance(tree, Comparison)
    assert tree.value.value == value


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("=", "="), ("==", "="), ("!=", "!="), ("<>", "!="), (">", ">"), (">=", ">="),
        ("<", "<"), ("<=", "<="), ("like", "LIKE"), ("NOT ILIKE", "NOT ILIKE"),
    ],
)  # fmt: skip
def test_operators_ignore_case_and_have_one_name(text: str, operator: str) -> None:
    tree = parse_filter(f"tags.a {text} 'x'")
    assert isinstance(tree, Comparison)
    assert tree.operator == operator


def test_and_binds_closer_than_or_and_not_closest() -> None:
    tree = parse_filter("not status = 'a' or status = 'b' AND (status = 'c' OR status = 'd')")
    assert isinstance(tree, Either)
    first, second = tree.parts
    assert isinstance(first, Not)
    assert isinstance(second, Both)
    assert isinstance(second.parts[1], Either)


def test_lists_and_nulls_have_their_own_forms() -> None:
    tree = parse_filter("run_id IN ('a', 'b') AND tags.x NOT IN ('c') AND params.y is not null")
    assert isinstance(tree, Both)
    one, two, three = tree.parts
    assert isinstance(one, Membership)
    assert [value.value for value in one.values] == ["a", "b"]
    assert isinstance(two, Membership)
    assert two.is_negated
    assert isinstance(three, Absence)
    assert three.is_negated


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_filter_matches_everything(text: str) -> None:
    assert parse_filter(text) == Both(())


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("metrics.a >", 1, 12, "a number or a text in quotes"),
        ("metrics.a", 1, 10, "an operator"),
        ("metrics.a = 1 metrics.b = 2", 1, 15, "AND, OR or the end"),
        ("metrics.a = 1 AND", 1, 18, "a field"),
        ("tags.a = b", 1, 10, "text needs quotes: 'b'"),
        ("tags.a =\n  'b", 2, 3, "a closing '"),
        ("(tags.a = 'b'", 1, 14, "')'"),
        ("tags.a IN 'b'", 1, 11, "'('"),
        ("tags.a IN ('b'", 1, 15, "',' or ')'"),
        ("tags.a IN ()", 1, 12, "a number or a text"),
        ("tags.a IS 'b'", 1, 11, "NULL or NOT NULL"),
        ("tags.a NOT = 'b'", 1, 12, "LIKE, ILIKE or IN"),
        ("foo.a = 1", 1, 1, "metrics, params, tags, dataset or attributes"),
        ("'tags'.a = 1", 1, 1, "a field"),
        ("tags.a = 'b' AND AND tags.c = 'd'", 1, 18, "a field"),
        ("tags.a = 'b' OR is null", 1, 17, "a field"),
        ("prams.lr = 1", 1, 1, "Did you mean params.lr?"),
        ("tags.a = 'b' && tags.c = 'd'", 1, 14, "Write AND."),
        ("tags.a = 'b' || tags.c = 'd'", 1, 14, "Write OR."),
        ("metrics.a between 1 and 2", 1, 11, "Write a >= 1 AND a <= 2."),
        ("tags.a = 'b';", 1, 13, "AND and OR join several"),
        ("metrics.a =\n\n> 1", 3, 1, "a number or a text"),
        ("status = 'a'\n AND ; = 1", 2, 6, "a field, an operator or a value"),
    ],
)
def test_a_wrong_filter_says_where_and_what_was_expected(
    text: str, line: int, column: int, expected: str
) -> None:
    with pytest.raises(FilterSyntaxError) as raised:
        parse_filter(text)
    error = raised.value
    assert (error.line, error.column) == (line, column)
    assert expected in str(error)
    shown, caret = error.caret.split("\n")
    assert shown.strip() == text.split("\n")[line - 1].strip()
    assert caret.index("^") - 4 == column - 1


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("metrics.loss.min > 1", "loss.min"),
        ("metrics.a.b.Max > 1", "a.b.Max"),
        ('metrics."loss".min > 1', None),
        ("metrics.loss > 1", None),
        ("params.loss.min > 1", None),
    ],
)
def test_a_statistic_written_as_part_of_a_name_keeps_the_name(text: str, whole: str | None) -> None:
    tree = parse_filter(text)
    assert isinstance(tree, Comparison)
    assert tree.field.whole == whole


@pytest.mark.parametrize("text", ["({})", "NOT {}", "(NOT {})"])
def test_a_filter_deeper_than_python_goes_is_refused(text: str) -> None:
    deep = shallow = "tags.a = 'b'"
    for _ in range(5000):
        deep = text.format(deep)
    for _ in range(40):
        shallow = text.format(shallow)
    parse_filter(shallow)
    with pytest.raises(FilterSyntaxError, match="at most 100 levels"):
        parse_filter(deep)


def test_a_filter_may_be_as_long_as_it_likes() -> None:
    tree = parse_filter(" AND ".join(f"(metrics.a > {number})" for number in range(2000)))
    assert isinstance(tree, Both)
    assert len(tree.parts) == 2000


def test_an_order_is_a_field_and_a_way() -> None:
    assert parse_order("metrics.acc desc") == Order(Field("metric", "acc"), is_descending=True)
    assert parse_order("tags.`a b`") == Order(Field("tag", "a b"), is_descending=False)
    with pytest.raises(FilterSyntaxError, match="ASC, DESC or the end"):
        parse_order("metrics.acc UP")


@given(key=st.text(min_size=1), quote=st.sampled_from("'\"`"))
def test_any_key_can_be_written_in_quotes(key: str, quote: str) -> None:
    tree: Node = parse_filter(f"tags.{quote}{key.replace(quote, quote * 2)}{quote} = 'x'")
    assert isinstance(tree, Comparison)
    assert tree.field.key == key


@given(text=st.text(alphabet="abm.'\"`=<>()! \n1-,ANDORNOTINIS", max_size=30))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    raised = _error(text)
    if raised is not None:
        assert 1 <= raised.line <= text.count("\n") + 1
        assert raised.column >= 1


def _error(text: str) -> FilterSyntaxError | None:
    try:
        parse_filter(text)
    except FilterSyntaxError as error:
        return error
    return None
