"""Every family finds its heads, neurons, hidden states and blocks."""

import pytest
import torch
from transformers import BloomConfig, T5Config

from cases import tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.families import FAMILIES, Site, blocks_of, family_of
from sadi_bench.models.hooks import edited
from tiny import SETTINGS, TINY


def test_every_family_has_a_tiny_model():
    assert {model_type for model_type, _ in SETTINGS.values()} == set(FAMILIES)


def test_sites_have_the_widths_that_the_config_states(lm):
    config = lm.network.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    wide = [getattr(config, n, None) for n in ("intermediate_size", "ffn_dim", "ffn_hidden_size")]
    neurons = next((w for w in wide if w), 4 * config.hidden_size)
    assert lm.widths == {
        Site.head: heads * head_dim,
        Site.neuron: neurons,
        Site.hidden: config.hidden_size,
        Site.residual: config.hidden_size,
    }
    assert lm.num_elements(Site.head) == heads == 4
    assert lm.num_elements(Site.neuron) == neurons
    assert lm.num_elements(Site.residual) == config.hidden_size
    assert len(blocks_of(lm.network, lm.family)) == lm.num_layers == 3


def test_the_head_width_is_not_the_hidden_size_where_the_config_says_so():
    widths = {n: tiny_lm(n).widths[Site.head] for n in ("llama", "qwen3", "gemma2", "gemma3")}
    assert widths == {"llama": 32, "qwen3": 48, "gemma2": 48, "gemma3": 48}


def test_a_site_is_visited_once_a_layer_and_in_order(lm):
    for site in Site:
        visits = []
        with edited(lm.network, lm.family, site, lambda layer, _v, v=visits: v.append(layer)):
            lm.backbone(input_ids=torch.tensor([[5, 6, 7]]))
        assert visits == [0, 1, 2]


def test_each_query_head_is_a_head_under_grouped_attention(llama):
    """Scaling head 1 changes nothing that the others hand on, though head 0 shares its KV head."""
    config = llama.network.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    module = blocks_of(llama.network, llama.family)[0].self_attn.o_proj
    seen = []
    handle = module.register_forward_hook(lambda _m, args, _o: seen.append(args[0].clone()))

    def double_head_1(layer, values):
        if layer:
            return None
        heads = values.unflatten(-1, (4, 8)).clone()
        heads[..., 1, :] *= 2
        return heads.flatten(-2)

    ids = torch.tensor([[5, 6, 7]])
    try:
        llama.backbone(input_ids=ids)
        with edited(llama.network, llama.family, Site.head, double_head_1):
            llama.backbone(input_ids=ids)
    finally:
        handle.remove()
    plain, steered = (s.unflatten(-1, (4, 8)) for s in seen)
    changed = (plain != steered).any(-1).any(0).any(0)
    assert changed.tolist() == [False, True, False, False]


def test_an_unknown_family_is_refused_and_the_table_named():
    with pytest.raises(SettingError, match=r"model type 't5' has no family.*FAMILIES") as caught:
        family_of(T5Config())
    assert all(name in str(caught.value) for name in FAMILIES)
    assert "\n" not in str(caught.value)


def test_a_bloom_that_goes_past_its_modules_is_refused():
    """With both settings its projections are computed without calling them: hooks see nothing."""
    with pytest.raises(SettingError, match=r"slow_but_exact.*pretraining_tp=2"):
        family_of(BloomConfig(pretraining_tp=2, slow_but_exact=True))
    for harmless in ({"pretraining_tp": 2}, {"slow_but_exact": True}):
        assert family_of(BloomConfig(**harmless)).masks == "alibi"


def test_alibi_decides_how_falcon_is_run():
    packs = {name: tiny_lm(name).packs for name in TINY}
    assert [name for name, packed in packs.items() if not packed] == ["falcon_alibi", "bloom"]
