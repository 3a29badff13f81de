"""How annotations are checked while tests run: an int may stand for a float (PEP 484's tower)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
