"""Who downloads what, who checks it, and what follows from what they find."""

import pytest

from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import Malformed, Refused
from support.crowd import (
    Crowd,
    Manner,
    batches,
    honest,
    lazy,
    liar,
    new_crowd,
    reply,
    sha256,
    unlucky,
)
from support.database import Database, key


@pytest.fixture
def crowd(db: Database) -> Crowd:
    """Ada, bob and eve; one task of 40 URLs."""
    return new_crowd(db, "ada", "bob", "eve")


def counting(db: Database) -> list[tuple[object, ...]]:
    return db.rows("select batch_id, n, attempt, submission_id from mill.current_download")


def test_a_new_workers_download_is_repeated_by_another(crowd: Crowd) -> None:
    db = crowd.db
    first = crowd.work("ada")
    assert first is not None
    before = counting(db)
    assert db.claim("download", "ada") is None  # its own check is not for it
    check = crowd.work("bob")
    assert check is not None
    assert check.payload.keys() == first.payload.keys()
    assert crowd.judge() == ["agreed"]
    assert (crowd.of("ada", "streak"), crowd.of("bob", "streak")) == (1, 0)
    assert db.rows("select compared, agreed from mill.replication") == [
        (compared := good(db), compared)
    ]
    assert compared > 10
    # nothing that the check gave counts: no row, thumbnail, score task, credit
    assert counting(db) == before
    assert db.value("select count(*) from mill.thumbnail where attempt > 1") == 0
    accepted = dict(db.rows("select name, rows_accepted from report.worker"))
    assert (accepted["ada"], accepted["bob"]) == (40, 0)
    assert db.claim("download", "eve") is None  # and it is not checked in its turn


def good(db: Database) -> int:
    return sum(honest(url)[0] is Outcome.SUCCESS for (url,) in db.rows("select url from mill.pair"))


def test_a_sample_is_repeated_and_not_the_batch(crowd: Crowd) -> None:
    crowd.db.admin.execute("update mill.setting set replicated_urls = 7")
    crowd.work("ada")
    claim = crowd.db.claim("download", "bob")
    assert claim is not None
    assert len(crowd.db.queue("download", "bob")[0].urls(claim.lease_id)) == 7


def test_a_check_goes_before_the_backlog(crowd: Crowd) -> None:
    batches(crowd.db, 3)
    first = crowd.work("ada")
    assert first is not None
    check = crowd.db.claim("download", "bob")
    assert check is not None
    assert check.payload["batch_id"] == first.payload["batch_id"]


def test_checks_need_no_room_in_the_ring(crowd: Crowd) -> None:
    crowd.work("ada")
    crowd.db.admin.execute("update mill.thumbnail_slot set state = 'full', batches = 64")
    assert crowd.work("bob") is not None
    assert crowd.judge() == ["agreed"]


@pytest.mark.parametrize(("streak", "checks"), [(9, 1), (2_000_000_000, 0), (None, 0)])
def test_who_agreed_often_is_replicated_rarely(crowd: Crowd, streak: int, checks: int) -> None:
    crowd.db.admin.execute("update mill.worker set streak = %s where name = 'ada'", (streak,))
    crowd.work("ada")
    assert crowd.db.value("select count(*) from mill.replication") == checks


def test_checks_can_be_switched_off(crowd: Crowd) -> None:
    crowd.db.admin.execute("update mill.setting set replicated_urls = 0")
    crowd.work("ada")
    assert crowd.db.value("select count(*) from mill.replication") == 0


def test_ten_checks_in_a_row_prove_a_worker(crowd: Crowd) -> None:
    batches(crowd.db, 9)
    for number in range(10):
        assert crowd.of("ada", "proven_at") is None
        crowd.work("ada")
        assert crowd.db.value("select count(*) from mill.replication") == number + 1
        crowd.work("bob")
        crowd.judge()
    assert crowd.of("ada", "streak") == 10
    assert crowd.of("ada", "proven_at") is not None


@pytest.mark.parametrize("lie", [liar("!"), lazy, lambda url: (Outcome.HTTP_ERROR, "")])
def test_a_liar_is_stopped_and_all_of_it_is_done_again(crowd: Crowd, lie: Manner) -> None:
    db = crowd.db
    batches(db, 2)
    for _ in range(3):
        crowd.work("ada", lie)
    assert db.value("select count(*) from mill.current_download") == 120
    while crowd.of("ada", "disabled_at") is None:
        assert crowd.work("bob") or crowd.work("eve")
        crowd.judge()
    assert crowd.of("ada", "disabled_at") is not None
    assert db.value("select count(*) from mill.current_download") == 0
    with pytest.raises(
        Refused, match=r"ada was stopped on .* UTC: others found only \d+ % of its downloads"
    ):
        db.claim("download", "ada")
    while crowd.work("bob") or crowd.work("eve"):
        crowd.judge()
    wrong = db.value(
        "select count(*) from mill.current_download join mill.submission using (submission_id)"
        " join mill.worker using (worker_id) where name = 'ada'"
    )
    assert (db.value("select count(*) from mill.current_download"), wrong) == (120, 0)


def test_what_agreed_before_stays(crowd: Crowd) -> None:
    batches(crowd.db, 2)
    crowd.work("ada")
    crowd.work("bob")
    assert crowd.judge() == ["agreed"]
    for _ in range(2):
        crowd.work("ada", liar("!"))
    while crowd.of("ada", "disabled_at") is None:
        assert crowd.work("bob") or crowd.work("eve")
        crowd.judge()
    assert crowd.db.value("select count(*) from mill.current_download") == 40


def test_a_slip_costs_the_streak_and_the_task(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.worker set streak = 9 where name = 'ada'")
    # one such check in a life is no lie: the average stays above the threshold
    crowd.work(
        "ada", lambda url: lazy(url) if key(url).int % 3 == 1 and key(url).int % 2 else honest(url)
    )
    crowd.work("bob")
    crowd.judge()
    crowd.work("eve")
    assert crowd.judge() == ["failed"]
    assert (crowd.of("ada", "streak"), crowd.of("ada", "disabled_at")) == (0, None)
    assert db.value("select count(*) from mill.current_download") == 0
    assert db.value("select count(*) from mill.task where state = 'ready' and not is_replica") == 1


def test_a_false_checker_is_found_by_a_third(crowd: Crowd) -> None:
    crowd.work("ada")
    crowd.work("bob", liar("?"))
    assert crowd.judge() == ["disputed"]
    assert crowd.db.claim("download", "ada") is None
    assert crowd.db.claim("download", "bob") is None
    crowd.work("eve")
    assert crowd.judge() == ["agreed", "failed"]
    assert (crowd.of("ada", "streak"), crowd.of("ada", "agreement")) == (1, 1)
    assert crowd.of("bob", "disabled_at") is not None
    assert crowd.db.value("select count(*) from mill.current_download") == 40


def test_the_admins_own_worker_decides_at_once(crowd: Crowd) -> None:
    crowd.db.admin.execute("select mill.prove_worker('bob', true)")
    crowd.network(ada="north", bob="north")  # it is trusted there too
    crowd.work("ada", liar("!"))
    crowd.work("bob")
    assert crowd.judge() == ["failed"]
    assert crowd.of("ada", "disabled_at") is not None


def test_the_admins_own_worker_decides_disputes_where_it_is_at_work(crowd: Crowd) -> None:
    db = crowd.db
    batches(db, 1)
    crowd.work("ada")
    crowd.work("bob", liar("?"))
    db.admin.execute("select mill.prove_worker('eve', true)")
    db.queue("download", "mia")
    db.admin.execute("update mill.worker set streak = 0 where name = 'mia'")
    at_work = db.claim("download", "eve")
    assert at_work is not None
    assert crowd.judge() == ["disputed"]
    assert db.claim("download", "mia") is None  # liars who are many would outvote the honest
    assert crowd.work("eve")
    assert crowd.judge() == ["agreed", "failed"]
    assert crowd.of("bob", "disabled_at") is not None


def test_what_a_liar_found_right_is_replicated_again(crowd: Crowd) -> None:
    """Two friends lie alike; once one is stopped, the other's are looked at anew."""
    db = crowd.db
    batches(db, 1)
    crowd.work("ada", liar("!"))
    crowd.work("bob", liar("!"))
    assert crowd.judge() == ["agreed"]
    crowd.work("bob", liar("!"))
    crowd.db.admin.execute("select mill.prove_worker('eve', true)")
    crowd.work("eve")
    assert crowd.judge() == ["agreed", "failed", "open"]
    assert (crowd.of("bob", "disabled_at") is not None, crowd.of("ada", "disabled_at")) == (
        True,
        None,
    )
    crowd.work("eve")
    assert crowd.judge() == ["agreed", "failed", "failed"]
    assert crowd.of("ada", "disabled_at") is not None
    assert db.value("select count(*) from mill.current_download") == 0


def test_three_who_differ_decide_nothing(crowd: Crowd) -> None:
    for name, salt in (("ada", "1"), ("bob", "2"), ("eve", "3")):
        crowd.work(name, liar(salt))
        states = crowd.judge()
    assert states == ["void"]
    assert [crowd.of(name, "streak") for name in ("ada", "bob", "eve")] == [0, 0, 0]


def test_a_checkers_own_trouble_is_not_held_against_the_checked(crowd: Crowd) -> None:
    crowd.work("ada")
    crowd.work("bob", lazy)
    assert crowd.judge() == ["void", "open"]  # another tries
    assert crowd.of("ada", "agreement") == 1


def test_a_few_differences_are_no_lie(crowd: Crowd) -> None:
    crowd.work("ada", unlucky)
    crowd.work("bob")
    assert crowd.judge() == ["agreed"]
    assert 0.9 < crowd.of("ada", "agreement") < 1  # type: ignore[operator]


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.HTTP_ERROR])
def test_two_who_found_nothing_agree_in_nothing(crowd: Crowd, outcome: Outcome) -> None:
    """Or two who do no work would prove each other."""
    crowd.network(ada="north", bob="south")
    for name in ("ada", "bob"):
        crowd.work(name, lambda url: (outcome, ""))
    assert crowd.judge()[0] == "void"


def test_a_login_more_of_the_same_network_is_no_other(crowd: Crowd) -> None:
    crowd.network(ada="north", bob="north", eve="south")
    crowd.work("ada")
    assert crowd.work("bob") is None
    assert crowd.work("eve") is not None


def test_a_discarded_check_is_void(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.setting set max_attempts = 1")
    crowd.work("ada")
    claim = db.claim("download", "bob")
    assert claim is not None
    db.queue("download", "bob")[0].fail(claim.lease_id, "no", retry=False)
    assert crowd.judge() == ["void", "open"]
    assert db.value("select mill.retry_task(%s)", claim.task_id) is None


def test_checks_that_nobody_does_hold_nothing_up(crowd: Crowd) -> None:
    db = crowd.db
    crowd.work("ada", lazy)
    assert db.value("select count(*) from mill.task where is_replica and state = 'ready'") == 1
    assert db.queue("download", "ada")[0].drained()
    db.admin.execute("update mill.setting set url_retry_seconds = 0")
    queued = db.rows("select urls, busy from mill.retry_outcomes(null, 0, 1000, true)")
    assert queued == [(40, 0)]


def test_no_more_than_twenty_checks_of_one_worker_wait(crowd: Crowd) -> None:
    batches(crowd.db, 22)
    while crowd.work("ada"):
        pass
    assert crowd.db.value("select count(*) from mill.replication") == 20


# ---- gold questions ------------------------------------------------------------------------------------


@pytest.fixture
def hidden(crowd: Crowd) -> Crowd:
    """Ten gold questions in the pool, an admin's, and room for them in a lease."""
    for n in range(10):
        url = f"http://c{n}.example/{n}.jpg"
        _, image = honest(url)
        crowd.db.admin.execute(
            "insert into mill.gold_question (url, sha256, by_admin) values (%s, %s, true)",
            (url, sha256(image) if image else None),
        )
    big = [f"http://b{n}.example/{n}.jpg" for n in range(200)]
    crowd.db.admin.execute("update mill.task set state = 'done'")
    crowd.db.extract(big, "big.wat.gz")
    crowd.db.close_batches()
    return crowd


def is_gold_question(url: str) -> bool:
    return url.startswith("http://c")


def test_gold_questions_stand_among_the_urls_in_no_place_that_shows_it(hidden: Crowd) -> None:
    claim = hidden.db.claim("download", "ada")
    assert claim is not None
    given = hidden.db.queue("download", "ada")[0].urls(claim.lease_id)
    assert [n for n, _ in given] == list(range(210))
    assert sum(is_gold_question(url) for _, url in given) == 10
    order = [url for _, url in given if not is_gold_question(url)]
    assert order != sorted(order, key=lambda url: int(url.rsplit("/", 1)[1][:-4]))
    # asked for again, and claimed again after a release, the same gold questions come
    assert hidden.db.queue("download", "ada")[0].urls(claim.lease_id) == given
    hidden.db.queue("download", "ada")[0].release(claim.lease_id)
    again = hidden.db.claim("download", "bob")
    assert again is not None
    assert again.task_id == claim.task_id
    other = hidden.db.queue("download", "bob")[0].urls(again.lease_id)
    assert {url for _, url in other} == {url for _, url in given}
    assert other != given


def test_right_answers_leave_no_trace_in_the_results(hidden: Crowd) -> None:
    db = hidden.db
    queue, _ = db.queue("download", "ada")
    claim = db.claim("download", "ada")
    assert claim is not None
    given = queue.urls(claim.lease_id)
    for part, start in enumerate(range(0, 210, 50)):
        queue.submit_download(claim.lease_id, part, reply(given[start : start + 50], honest))
    queue.complete(claim.lease_id)
    assert queue.me()["rows_waiting"] == 200
    db.accept_all()
    assert db.rows(
        "select p.url, o.name from mill.current_download d join mill.pair p using (batch_id, n)"
        " join mill.outcome o on o.code = d.outcome order by 1"
    ) == sorted(
        (f"http://b{n}.example/{n}.jpg", honest(f"http://b{n}.example/{n}.jpg")[0].name.lower())
        for n in range(200)
    )
    thumbs = db.rows("select url from mill.thumbnail join mill.pair using (batch_id, n) order by 1")
    assert thumbs == sorted(
        (url,)
        for _, url in given
        if not is_gold_question(url) and honest(url)[0] is Outcome.SUCCESS
    )
    assert db.value("select count(*) from mill.assignment") == 0
    assert hidden.judge()[:1] == ["agreed"]
    assert hidden.of("ada", "streak") == 0  # that proves little
    assert db.value("select min(answers) from mill.gold_question") == 1


def test_who_answers_gold_questions_wrong_is_stopped(hidden: Crowd) -> None:
    hidden.work("ada", liar("!"))
    assert "failed" in hidden.judge()
    assert hidden.of("ada", "disabled_at") is not None
    assert hidden.db.value("select count(*) from mill.current_download") == 0


def test_who_repeats_a_sample_gets_no_gold_questions(hidden: Crowd) -> None:
    hidden.work("ada")
    claim = hidden.db.claim("download", "bob")
    assert claim is not None
    given = hidden.db.queue("download", "bob")[0].urls(claim.lease_id)
    assert not any(is_gold_question(url) for _, url in given)


def test_refusals_do_not_tell_gold_questions_from_urls(hidden: Crowd) -> None:
    db = hidden.db
    queue, _ = db.queue("download", "ada")
    claim = db.claim("download", "ada")
    assert claim is not None
    with pytest.raises(Malformed, match="not of this task"):  # nobody knows the numbers yet
        queue.submit_download(claim.lease_id, 0, reply([(0, "http://b1.example/")], honest))
    given = queue.urls(claim.lease_id)
    said = set()
    gold_questions = [(n, url) for n, url in given if is_gold_question(url)]
    others = [(n, url) for n, url in given if not is_gold_question(url)]
    for some in (gold_questions, others):
        wrong = reply(some[:3], honest)
        wrong.http_status[0] = 7
        with pytest.raises(Malformed) as malformed:
            queue.submit_download(claim.lease_id, 0, wrong)
        said.add(str(malformed.value))
    assert len(said) == 1
    queue.submit_download(claim.lease_id, 1, reply(gold_questions[:1] + others[:1], honest))
    for some in (gold_questions[:1], others[:1]):
        with pytest.raises(Malformed, match="submitted already"):
            queue.submit_download(claim.lease_id, 2, reply(some, honest))
    with pytest.raises(Malformed, match="208 positions were not submitted"):
        queue.complete(claim.lease_id)
    queue.submit_download(
        claim.lease_id, 3, reply(gold_questions[1:], honest)
    )  # nothing but gold questions
    queue.submit_download(claim.lease_id, 4, reply(others[1:], honest))
    queue.complete(claim.lease_id)
    assert [a[2:] for a in db.accept_all()] == [(1, None), (0, None), (199, None)]


def test_a_lost_lease_with_gold_questions_goes_on_elsewhere(hidden: Crowd) -> None:
    db = hidden.db
    queue, _ = db.queue("download", "ada")
    claim = db.claim("download", "ada")
    assert claim is not None
    given = queue.urls(claim.lease_id)
    queue.submit_download(claim.lease_id, 0, reply(given[:100], honest))
    queue.release(claim.lease_id)
    again = db.claim("download", "bob")
    assert again is not None
    rest = db.queue("download", "bob")[0].urls(again.lease_id)
    done = {url for _, url in given[:100] if not is_gold_question(url)}
    assert {url for _, url in rest if not is_gold_question(url)} == {
        url for _, url in given if not is_gold_question(url)
    } - done
    hidden.finish("bob", again, honest)
    assert db.value("select count(*) from mill.current_download") == 200


def test_an_admins_own_downloads_become_gold_questions_for_a_while(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("select mill.prove_worker('bob', true)")
    crowd.work("bob")
    drawn = db.rows("select url, sha256, by_admin, answers from mill.gold_question")
    assert len(drawn) == 5
    for url, digest, by_admin, answers in drawn:
        assert honest(url) == (Outcome.SUCCESS, url)
        assert (digest, by_admin, answers) == (sha256(url), False, 0)
    steward = db.queue("steward")[0]
    assert steward.maintain("sweep_gold_questions") == 0
    db.admin.execute(
        "insert into mill.removal (source, md5, reason) values ('x', %s, '')", (key(drawn[0][0]),)
    )
    assert steward.maintain("sweep_gold_questions") == 1
    db.admin.execute("update mill.gold_question set answers = 3")
    assert steward.maintain("sweep_gold_questions") == 4


# ---- dead links ----------------------------------------------------------------------------------


def test_a_dead_link_that_one_network_saw_is_tried_from_another(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.setting set replicated_urls = 0")
    crowd.network(ada="north", bob="north", eve="south")
    dead = {url for (url,) in db.rows("select url from mill.pair") if honest(url)[1] == ""}
    crowd.work("ada")
    seen = db.rows("select url, networks, believed from report.dead_link")
    assert sorted(seen) == sorted((url, 1, False) for url in dead)
    retry = "select batches, urls, busy from mill.retry_doubted(0, 1000)"
    assert db.rows(retry) == [(1, len(dead), 0)]
    assert db.rows(retry) == [(0, 0, 1)]
    assert db.claim("download", "ada") is None
    assert db.claim("download", "bob") is None
    lives = min(dead)
    crowd.work("eve", lambda url: (Outcome.SUCCESS, url) if url == lives else honest(url))
    believed = db.rows("select url, networks, believed from report.dead_link")
    assert sorted(believed) == sorted((url, 2, True) for url in dead - {lives})
    assert db.rows(retry) == [(0, 0, 0)]


def test_what_a_check_found_dead_counts_as_seen(crowd: Crowd) -> None:
    crowd.network(ada="north", bob="south")
    crowd.work("ada")
    crowd.work("bob")
    assert set(crowd.db.rows("select networks, believed from report.dead_link")) == {(2, True)}
