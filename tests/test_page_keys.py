"""Keys that everybody can read: what pages may do with them, and that nobody may do more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.rpc import status_pb2

from decider.errors import (
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RateExceeded,
    Unauthenticated,
    Violation,
)
from decider.server.access import Access
from decider.server.command import main
from decider.server.pages import KEY_START, PageKey, calls_of, shorten, shorten_error
from decider.server.roles import Rights, Role
from decider.server.rpc import to_status
from decider.server.settings import Settings
from decider.server.tokens import BadTokens, new_page_key, new_token, parse_tokens
from decider.v1 import decider_service_pb2 as pb

SHOP = "https://shop.example"

ROW = f"[[pages]]\nname = 'p'\nkey = '{KEY_START}{'k' * 32}'\norigins = ['{SHOP}']\nexperiments = ['own']\n"

KEY = PageKey(Rights("p", frozenset({Role.DECIDE, Role.REWARD}), frozenset({"own"})), frozenset({SHOP}))


def key_of(lines: str) -> str:
    """In its row."""
    return re.findall(r'^key = "(.*)"$', lines, re.MULTILINE)[0]  # type: ignore[no-any-return]


def test_a_row_says_what_a_key_is_good_for() -> None:
    """The least that it has to say is its experiments and its sites; the rest has defaults that fit a page."""
    page = parse_tokens(ROW.encode()).page(KEY_START + "k" * 32)
    assert page == KEY
    assert (page.rate, page.total, page.rewards_by_unit) == (20.0, 2_000.0, False)
    more = "roles = ['reward']\nrate = 5\ntotal = 0.5\nrewards_by_unit = true\n"
    page = parse_tokens((ROW + more).encode()).page(KEY_START + "k" * 32)
    assert page is not None
    assert (page.rate, page.total, page.rewards_by_unit) == (5.0, 0.5, True)
    assert page.rights.roles == {Role.REWARD}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("key = 'short'", "key: must be page_ and 22 to 64"),
        ("key = 'secret-secret-secret-secret-secret-secret'", "key: must be page_"),
        ("roles = ['decide', 'operate']", "roles: everybody has a page's key; only decide and reward"),
        ("roles = []", "roles: write a list"),
        ("experiments = []", "experiments: write a list of ids"),
        ("origins = []", "origins: write a list of 1 to 100 addresses"),
        ("origins = 'https://shop.example'", "origins: write a list of 1 to 100 addresses"),
        (f"origins = {['https://shop.example'] * 101}", "origins: write a list of 1 to 100 addresses"),
        ("origins = ['https://*.shop.example']", "origins: number 1 is not the address of a site"),
        (f"origins = ['{SHOP}', 'secret-secret']", "origins: number 2 is not the address of a site"),
        ("origins = ['https://shop.example/path']", "origins: number 1 is not the address"),
        ("origins = ['https://münchen.example']", "xn-- where letters are not ASCII"),
        ("origins = ['null']", "origins: number 1 is not the address"),
        ("origins = ['file://']", "origins: number 1 is not the address"),
        ("origins = ['https://shop.example:99999']", "origins: number 1 is not the address"),
        ("origins = [1]", "origins: number 1 is not the address"),
        ("rate = 0", "rate: write calls a second, 0.1 to 100,000"),
        ("rate = true", "rate: write calls a second"),
        ("rate = nan", "rate: write calls a second"),
        ("total = inf", "total: write calls a second"),
        ("rewards_by_unit = 'yes'", "rewards_by_unit: write true or false"),
        ("sha256 = 'secret'", "has another key than"),
        ("until = 2027-01-01", "until: write a time with its zone"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_of_it_told(line: str, words: str) -> None:
    """An error stands in outputs and on /readyz: it must not repeat what may be a token in the wrong place."""
    name = line.partition(" ")[0]
    rows = [one for one in ROW.splitlines() if not one.startswith(f"{name} =")]
    with pytest.raises(BadTokens) as caught:
        parse_tokens("\n".join([*rows, line]).encode())
    assert "tokens: [[pages]] number 1: " in str(caught.value)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_is_never_for_every_experiment() -> None:
    """So it cannot link units either, which holds everywhere."""
    without = "\n".join([one for one in ROW.splitlines() if not one.startswith("experiments")])
    with pytest.raises(BadTokens, match="experiments: is needed"):
        parse_tokens(without.encode())
    with pytest.raises(BadTokens, match="number 2: key: the same stands further above"):
        parse_tokens((ROW + ROW).encode())
    page = parse_tokens(ROW.encode()).page(KEY_START + "k" * 32)
    assert page is not None
    with pytest.raises(PermissionDenied):
        page.rights.check_all("a link holds in every experiment")


def test_the_command_makes_a_row() -> None:
    """As it is written it works."""
    made = CliRunner().invoke(
        main, ["token", "shop", "--page", "--origin", "https://Shop.example:443/", "--experiment", "own"]
    )
    assert (made.exit_code, made.stderr) == (0, "")
    page = parse_tokens(made.stdout.encode()).page(key_of(made.stdout))
    assert page is not None
    assert (page.origins, page.rights.experiments) == (frozenset({SHOP}), frozenset({"own"}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--page", "--experiment", "own"], "--page: name the sites"),
        (["--page", "--origin", SHOP], "--page: name the sites"),
        (["--page", "--origin", "*", "--experiment", "own"], "--origin is not the address of a site"),
        (["--page", "--origin", SHOP, "--experiment", "own", "--role", "read"], "only decide and reward"),
        (["--page", "--origin", SHOP, "--experiment", "own", "--token-file", "x"], "--token-file: is for secrets"),
        (["--role", "decide", "--origin", SHOP], "--origin: is for keys of pages; add --page"),
        ([], "--role: is needed"),
    ],
)
def test_the_command_says_what_is_missing(options: list[str], words: str) -> None:
    """And makes nothing."""
    made = CliRunner().invoke(main, ["token", "shop", *options])
    assert made.exit_code != 0
    assert words in made.stderr
    assert made.stdout == ""


def test_a_key_is_good_for_nothing_where_tokens_are_asked_for(tmp_path: Path) -> None:
    """Over gRPC and on the page's port there are no origins and no rates."""
    tokens = tmp_path / "tokens.toml"
    lines = new_page_key("shop", origins=[SHOP], experiments=["own"])
    tokens.write_text(lines)
    access = Access(Settings(tokens=tokens))
    with pytest.raises(PermissionDenied) as refused:
        access.identify(f"Bearer {key_of(lines)}", None)
    assert refused.value.reason == "PAGE_KEY"
    assert key_of(lines) not in str(refused.value)
    with pytest.raises(Unauthenticated):
        access.identify(f"Bearer {key_of(lines)}x", None)


def test_a_file_that_is_read_anew_forgets_no_calls(tmp_path: Path) -> None:
    """Else whoever can make the file change, or waits for it, had a burst more."""
    tokens = tmp_path / "tokens.toml"
    lines = new_page_key("shop", origins=[SHOP], experiments=["own"])
    key = key_of(lines)
    tokens.write_text(lines)
    access = Access(Settings(tokens=tokens, workers=4))

    def change(content: str) -> PageKey | None:
        tokens.write_text(content)
        access.look()
        access.look()
        return access.page(key)

    page = access.page(key)
    assert page is not None
    assert page.rates.most == 100
    page.take("203.0.113.7", 100)
    assert access.is_page(SHOP)
    page = change(lines + new_token("root", [*Role], [], None)[1])
    assert page is not None
    with pytest.raises(RateExceeded):
        page.take("203.0.113.7")
    page = change(lines + "rate = 40\n")
    assert page is not None
    page.take("203.0.113.7", 200)
    assert change(new_token("root", [*Role], [], None)[1]) is None
    assert not access.is_page(SHOP)


def test_of_several_processes_each_takes_its_share() -> None:
    """They share a port, and a key's total is for all of them; what one address may is not divided, since all of its
    connections may be with one of them."""
    page = KEY.with_rates(4)
    assert [page.rates.take(f"{number}", 100) == 0.0 for number in range(26)] == [True] * 25 + [False]


def test_a_batch_counts_as_its_requests() -> None:
    """Else a batch of a thousand would be one call."""
    many = pb.DecideBatchRequest(requests=[pb.DecideRequest()] * 7)
    assert calls_of(many) == 7
    assert calls_of(pb.RewardBatchRequest(requests=[pb.RewardRequest()] * 3)) == 3
    assert calls_of(pb.DecideSlateRequest(slots=[pb.Slot()] * 4)) == 4
    assert [calls_of(one) for one in (pb.DecideRequest(), pb.DecideBatchRequest(), pb.ActivateRequest())] == [1, 1, 1]
    page = KEY.with_rates(1)
    with pytest.raises(RateExceeded, match=r"requests: 101 of them are more than .*; send at most 100 a call"):
        page.take("203.0.113.7", 101)
    page.take("203.0.113.7", 100)
    with pytest.raises(RateExceeded, match="the next one may come in") as refused:
        page.take("203.0.113.7", 2)
    assert refused.value.after == pytest.approx(0.1, abs=0.05)


FOR_TOKENS = [
    ("explore", pb.DecideRequest(explore=False)),
    ("explore", pb.DecideBatchRequest(requests=[pb.DecideRequest(), pb.DecideRequest(explore=False)])),
    ("explore", pb.DecideSlateRequest(explore=False)),
    ("with_ranking", pb.DecideRequest(with_ranking=True)),
    ("with_ranking", pb.DecideSlateRequest(with_ranking=True)),
    ("actions", pb.DecideRequest(actions=[pb.CalledAction(id="x")])),
    ("action_features", pb.DecideRequest(action_features={"x": {}})),
    ("retract", pb.RewardRequest(retract=True)),
    ("correct", pb.RewardBatchRequest(requests=[pb.RewardRequest(correct=True)])),
    ("final", pb.RewardRequest(final=True)),
    ("unit_id", pb.RewardRequest(unit_id="somebody")),
]


@pytest.mark.parametrize(
    ("field", "request_"), FOR_TOKENS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(FOR_TOKENS)]
)
def test_what_no_page_needs_is_refused(field: str, request_: pb.DecideRequest) -> None:
    """What a page's key may not: see the policy, make actions up, change what was said before, ask about units."""
    with pytest.raises(PermissionDenied, match=f"^{field}: ") as refused:
        KEY.check(request_)
    assert refused.value.reason == "NOT_FOR_PAGES"


def test_every_field_of_a_request_is_for_pages_or_for_tokens() -> None:
    """A field that is added later must not be open to everybody because nobody thought of it."""
    fields: dict[Any, str] = {
        pb.DecideRequest: "experiment unit_id context decision_id eligible_actions excluded_actions default_action",
        pb.DecideSlateRequest: "experiment unit_id context slate_id slots",
        pb.RewardRequest: "decision_id name value reward_id occurred_at experiment",
        pb.ActivateRequest: "decision_id action",
    }
    refused = {type(one) for _, one in FOR_TOKENS} & fields.keys()
    assert refused == fields.keys() - {pb.ActivateRequest}
    for kind, names in fields.items():
        for_tokens = {
            pb.DecideRequest: "action_features explore with_ranking actions",
            pb.DecideSlateRequest: "action_features explore with_ranking actions",
            pb.RewardRequest: "retract correct final unit_id",
            pb.ActivateRequest: "",
        }[kind]
        assert {one.name for one in kind.DESCRIPTOR.fields} == {*names.split(), *for_tokens.split()}


def test_a_reply_tells_a_page_what_it_needs() -> None:
    """Not how much the log holds, nor what a unit has had."""
    decided = pb.DecideResponse(decision_id="d", propensity=0.5, model=4711)
    shorten(pb.DecideRequest(), decided)
    assert decided == pb.DecideResponse(decision_id="d", propensity=0.5)
    slate = pb.DecideSlateResponse(decisions=[pb.DecideResponse(model=4711)])
    shorten(pb.DecideSlateRequest(), slate)
    assert slate == pb.DecideSlateResponse(decisions=[pb.DecideResponse()])
    rewards = pb.RewardBatchRequest(requests=[pb.RewardRequest(unit_id="u"), pb.RewardRequest(decision_id="d")])
    joined = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED)
    no_decision = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_NO_DECISION)
    credited = pb.RewardResponse(outcome=pb.REWARD_OUTCOME_JOINED, decision_ids=["e"])
    for by_unit in (credited, no_decision):
        results = [pb.RewardResult(response=by_unit), pb.RewardResult(response=joined)]
        reply = pb.RewardBatchResponse(results=results)
        shorten(rewards, reply)
        assert [one.response for one in reply.results] == [pb.RewardResponse(), joined]
    shorten(pb.RewardRequest(unit_id="u"), credited)
    assert credited == pb.RewardResponse()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            NotFound("experiment 'own' has no action 'x'; it has a, hidden", reason="ACTION_NOT_FOUND"),
            "action: the experiment has no action with this id",
        ),
        (
            FailedPrecondition(
                "eligible_actions names no active action; active are hidden", reason="NO_ELIGIBLE_ACTION"
            ),
            "no action is left that the call and the rules of the experiment allow",
        ),
        (
            InvalidArgument(
                [
                    Violation(
                        "context.features[age]", "has no rule in the experiment's schema; it has rules for hidden"
                    ),
                    Violation("unit_id", "must have 1 to 256 characters"),
                ]
            ),
            "context.features[age]: is refused; who calls with a token is told why; "
            "unit_id: must have 1 to 256 characters",
        ),
        (
            DeciderError("/var/hidden.db", reason="LOG_UNAVAILABLE"),
            "the call is refused; who calls with a token is told why",
        ),
        (NotFound("there is no decision 'd'", reason="DECISION_NOT_FOUND"), "there is no decision 'd'"),
    ],
)
def test_an_error_names_nothing_that_a_page_did_not_send(error: DeciderError, message: str) -> None:
    """Hints list the actions of an experiment, those of next week's campaign as well."""
    status = to_status(error)
    before = status_pb2.Status()
    before.CopyFrom(status)
    shorten_error(status)
    assert status.message == message
    assert "hidden" not in str(status)
    assert status.code == before.code
    assert [one.TypeName() for one in status.details] == [one.TypeName() for one in before.details]
    batch = pb.DecideBatchResponse(results=[pb.DecideResult(error=before)])
    shorten(pb.DecideBatchRequest(requests=[pb.DecideRequest()]), batch)
    assert batch.results[0].error == status
