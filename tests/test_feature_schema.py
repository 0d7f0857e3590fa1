"""The contract about features: a frontend that sends something else than the model was taught is seen at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.errors import InvalidExperiment
from decider.experiment.feature_schema import FeatureProblem, FeatureRule, FeatureSchema, FeatureType
from decider.experiment.schema import definition_text, from_message, parse_toml, read_json, to_message
from decider.log.open import open_reader
from decider.types import Context, Features
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import sample_experiment
from tests.rpc_clients import InProcessClient, ServerProcess, code_of, experiment, fields_of, status_of
from tests.test_named_actions import metric, struct

FILE = """
id = "offer"

[[actions]]
id = "none"

[[actions]]
id = "sale"

[schema]
on_problem = "count"

[schema.features.segment]
values = ["new", "vip"]
required = true

[schema.features.age]
range = { minimum = 0, maximum = 120 }
on_problem = "refuse"

[schema.features.app]
type = "flag"
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A real server with the experiment of the file; at the end its log is verified."""
    opened = InProcessClient(tmp_path_factory.mktemp("schema") / "log.db")
    opened.apply(parse_toml(FILE, "offer.toml"))
    opened.apply(experiment("plain"))
    yield opened
    opened.close()
    with closing(open_reader(opened.db)) as log:
        result = verify(log)
    assert result.equal == result.decisions


def problems(schema: FeatureSchema, segment: str = "", device: str = "", **features: Any) -> dict[str, str]:
    """What is wrong, by feature."""
    context = Context(segment, device, features=features)
    return {one.feature: one.problem.value for one in schema.breaches(context)}


SCHEMA = from_message(parse_toml(FILE, "offer.toml")).schema or FeatureSchema()


@pytest.mark.parametrize(
    ("fields", "features", "expected"),
    [
        (("new",), {"age": 31.0, "app": True}, {}),
        (("vip",), {}, {}),
        ((), {}, {"segment": "missing"}),
        (("VIP",), {}, {"segment": "value"}),
        (("new",), {"age": "31"}, {"age": "type"}),
        (("new",), {"age": True}, {"age": "type"}),
        (("new",), {"app": 1.0}, {"app": "type"}),
        (("new",), {"age": -1.0}, {"age": "range"}),
        (("new",), {"age": 121.0}, {"age": "range"}),
        (("new",), {"agee": 31.0}, {"agee": "undeclared"}),
        (("new", "mobile"), {}, {"device": "undeclared"}),
        (("new",), {"app": ""}, {}),
    ],
)
def test_every_way_to_break_the_contract_has_its_name(
    fields: tuple[str, ...], features: Mapping[str, Any], expected: Mapping[str, str]
) -> None:
    """ "It is wrong" helps nobody: another value, another type and a missing field have other causes."""
    assert problems(SCHEMA, *fields, **features) == expected


VALUES = st.one_of(st.text(max_size=3), st.floats(-5, 5), st.booleans())


@given(
    rules=st.dictionaries(st.sampled_from("abcd"), st.booleans()),
    features=st.dictionaries(st.sampled_from("abcdef"), VALUES),
)
def test_a_context_that_a_schema_was_made_of_keeps_it(rules: Mapping[str, bool], features: Features) -> None:
    """What a schema allows is exactly what it says: no rule refuses the value that it was written for."""
    types = {str: FeatureType.CATEGORY, bool: FeatureType.FLAG, float: FeatureType.NUMBER}
    made = {name: FeatureRule(types[type(value)], required=value != "") for name, value in features.items()}
    assert not list(FeatureSchema(made).breaches(Context(features=features)))
    others = {name: FeatureRule(required=required) for name, required in rules.items()}
    found = {one.feature for one in FeatureSchema(others).breaches(Context(features=features))}
    given_ = {name for name, value in features.items() if value != ""}
    wrong = {name for name in given_ & rules.keys() if not isinstance(features[name], str)}
    assert found == wrong | (given_ - rules.keys()) | {name for name in rules.keys() - given_ if rules[name]}


def test_what_breaks_the_contract_is_counted(client: InProcessClient) -> None:
    """The answer is as ever: nobody's page depends on a schema that was written too narrowly."""
    assert client.decide("offer", context=pb.Context(segment="vpi", features=struct(agee=3, app=2))).action.id
    count = dict.fromkeys(("value", "type", "undeclared"), 1.0)
    for feature, problem in (("segment", "value"), ("app", "type"), ("", "undeclared")):
        found = metric(client, "decider_feature_problems_total", experiment="offer", feature=feature, problem=problem)
        assert found == count[problem], (feature, problem)


def test_labels_come_from_the_schema_alone(client: InProcessClient) -> None:
    """A caller that puts ids into names of features must not fill the memory of the metrics."""
    for number in range(50):
        client.decide("offer", context=pb.Context(segment="new", features=struct(**{f"order-{number}": 1})))
    _, text = client.fetch("/metrics")
    assert "order-" not in text


def test_what_the_schema_wants_refused_is_refused_with_the_way_out(client: InProcessClient) -> None:
    """The developer reads it in the first test call, not in the model's figures a month later."""
    status = status_of(lambda: client.decide("offer", context=pb.Context(segment="new", features=struct(age="31"))))
    assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", ["context.features[age]"])
    assert "is the category '31'; it must be a number" in status.message
    strict = parse_toml(FILE.replace('"count"', '"refuse"').replace('"offer"', '"strict"'), "strict.toml")
    client.apply(strict)
    status = status_of(lambda: client.decide("strict", context=pb.Context(segment="vpi", features=struct(x=1, y=2))))
    assert fields_of(status) == ["context.segment", "context.features[x]", "context.features[y]"]
    assert "is 'vpi', which is not among the known values: new, vip" in status.message
    assert (
        metric(client, "decider_feature_problems_total", experiment="strict", feature="segment", problem="value") == 1
    )
    assert client.decide("strict", context=pb.Context(segment="vip")).action.id


def test_a_retry_of_a_decision_is_answered_whatever_the_schema_says_now(client: InProcessClient) -> None:
    """The decision was made under another version; to refuse it now would lose its reward."""
    first = client.decide("plain", decision_id="before", context=pb.Context(segment="x"))
    changed = experiment("plain")
    changed.schema.on_problem = experiment_pb2.ON_FEATURE_PROBLEM_REFUSE
    changed.schema.features["device"].required = True
    client.apply(changed)
    client.until(lambda: status_of(lambda: client.decide("plain")).code, what="the schema holds")
    assert client.decide("plain", decision_id="before", context=pb.Context(segment="x")) == first


def test_a_server_says_once_what_breaks_the_schema_and_never_the_value(tmp_path: Path) -> None:
    """A value may be personal, and a server's output goes where the log's rules do not hold."""
    (tmp_path / "offer.toml").write_text(FILE)
    server = ServerProcess(tmp_path / "log.db", "--experiments", str(tmp_path / "offer.toml"))
    try:
        with closing(server.client()) as client:
            for unit in range(20):
                client.decide("offer", f"u{unit}", context=pb.Context(segment="secret@example.org"))
    finally:
        server.terminate()
    lines = [line for line in server.output.splitlines() if "breaks the schema" in line]
    assert len(lines) == 1
    assert "context.segment (value)" in lines[0]
    assert "secret" not in server.output


def test_a_schema_comes_back_as_it_was_applied() -> None:
    """Through TOML, message, definition text and back; and a definition without one has no word of it."""
    made = from_message(parse_toml(FILE, "offer.toml"))
    assert from_message(read_json(definition_text(made))) == made
    assert from_message(to_message(made)) == made
    text = definition_text(sample_experiment())
    assert "schema" not in text
    assert "actions_in_calls" not in text


def test_a_schema_does_not_change_a_decision(client: InProcessClient) -> None:
    """It is looked at before the rules, so two versions that differ in it alone draw alike."""
    with_schema = parse_toml(FILE.replace('"offer"', '"twin"'), "twin.toml")
    client.apply(with_schema)
    one = client.decide("twin", context=pb.Context(segment="new"), decision_id="t-1", with_ranking=True)
    with_schema.ClearField("schema")
    client.apply(with_schema)
    client.until(lambda: client.decide("twin").experiment_version == 2, what="the version serves")
    again = client.decide("twin", context=pb.Context(segment="new"), decision_id="t-2", with_ranking=True)
    assert [*one.ranking] == [*again.ranking]


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("[schema]", "schema.features", "has no rule"),
        ("[schema.features.segment]\ntype = 'number'", "schema.features[segment].type", "a category always"),
        ("[schema.features.x]\ntype = 'flag'\nvalues = ['a']", "schema.features[x].values", "are for categories"),
        (
            "[schema.features.x]\nrange = { minimum = 2, maximum = 1 }",
            "schema.features[x].range",
            "minimum < maximum",
        ),
        (
            "[schema.features.x]\ntype = 'category'\nrange = { minimum = 1, maximum = 2 }",
            "schema.features[x].range",
            "is for numbers",
        ),
        ("[schema.features.x]\nvalues = ['']", "schema.features[x].values", "1 to 256 characters"),
        ("[schema.features.x]\nvalue = ['a']", "schema.features[x].value", "did you mean values?"),
        ("[schema.features.x]\ntype = 'text'", "schema.features[x].type", "is none of category, number, flag"),
        ("[schema.features.x]\nrange = 3", "schema.features[x].range", "must be a table"),
        ("[schema]\nfeatures = 3", "schema.features", "must be a table of names and values"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(text: str, field: str, problem: str) -> None:
    """With the field and what to do, as every wrong line of a file."""
    content = FILE[: FILE.index("[schema]")] + text
    with pytest.raises(InvalidExperiment) as refused:
        from_message(parse_toml(content, "f"))
    assert {violation.field.removeprefix("f: ") for violation in refused.value.violations} == {field}
    assert problem in str(refused.value)


def test_problems_are_what_the_metrics_say() -> None:
    """The README names them; another word would break somebody's alert."""
    assert {one.value for one in FeatureProblem} == {"missing", "undeclared", "type", "value", "range"}
