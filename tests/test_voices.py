"""What others say of us: the latest 31 have one voice each."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from dht_atonce.dht.voices import Voices


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(-5, 5)), max_size=200))
def test_the_latest_have_one_voice_each(spoken: list[tuple[int, float]]) -> None:
    voices: Voices[float] = Voices(array("d"))
    model: dict[int, float] = {}
    for speaker, word in spoken:
        forgotten = model.pop(speaker, None)
        if len(model) >= 31:
            forgotten = model.pop(next(iter(model)))
        model[speaker] = word
        assert voices.on_voice(bytes([speaker]), word) == forgotten
        assert voices.latest() == word
        assert list(voices) == list(model.values())
        assert len(voices) == len(model)


def test_before_anybody_spoke() -> None:
    voices: Voices[str] = Voices([])
    assert voices.latest() is None
    assert list(voices) == []
    assert len(voices) == 0
