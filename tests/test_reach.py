"""What we believe of whether strangers can reach us."""

from dht_atonce.config import DhtConfig
from dht_atonce.dht.reach import Reach

CONFIG = DhtConfig()


def test_without_a_sign_the_way_is_shut() -> None:
    assert not Reach(CONFIG, local=False).is_open(0.0)


def test_in_a_local_network_it_is_open_whatever_happens() -> None:
    reach = Reach(CONFIG, local=True)
    reach.on_missed(1.0)
    assert reach.is_open(1.0)


def test_a_stranger_who_comes_through_shows_that_it_is_open_for_a_while() -> None:
    reach = Reach(CONFIG, local=False)
    reach.on_stranger(10.0)
    assert reach.is_open(10.0)
    assert reach.is_open(10.0 + CONFIG.reach_life_s - 1)
    assert not reach.is_open(10.0 + CONFIG.reach_life_s)


def test_news_that_had_to_be_fetched_weighs_more() -> None:
    reach = Reach(CONFIG, local=False)
    reach.on_stranger(10.0)
    reach.on_missed(20.0)
    reach.on_stranger(30.0)
    assert not reach.is_open(30.0)
    reach.on_stranger(500.0)
    assert not reach.is_open(20.0 + CONFIG.reach_life_s - 1)
    assert reach.is_open(20.0 + CONFIG.reach_life_s)
