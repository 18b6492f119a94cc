import pytest
from short_runs import small

from da.errors import UserError
from da.methods.cdan import CDAN
from da.methods.cdan_mcc import CDANMCC
from da.methods.mcc import MCC


@pytest.mark.parametrize("forward_mode", ["joint", "separate"])
def test_it_is_the_sum_of_both(forward_mode, batch, fake_trainer):
    common = {"norm": "bn", "seed": 1, "forward_mode": forward_mode}
    conditional = {"trade_off": 0.7, "entropy_conditioning": True, "randomized_dim": 12}
    found = []
    for kind, options in (
        (CDANMCC, conditional | {"mcc_trade_off": 0.3, "temperature": 1.5}),
        (CDAN, conditional),
        (MCC, {"trade_off": 0.3, "temperature": 1.5}),
    ):
        module = small(kind, **common, **options)
        module.prepare()
        fake_trainer(module).step = 50
        found.append({name: loss.item() for name, loss in module.losses(batch).items()})
    assert found[0] == found[1] | found[2]
    assert set(found[0]) == {"task", "domain", "class_confusion"}


def test_a_temperature_of_0_is_refused():
    with pytest.raises(UserError, match=r"temperature: expected a number above 0, got 0"):
        small(CDANMCC, temperature=0)
