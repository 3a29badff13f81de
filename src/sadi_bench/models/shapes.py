"""Array types with their shapes, `Float[Tensor, "layer width"]`, checked by the tests.

jaxtyping is a tool of the tests: without it (a bare GPU machine) the annotations stand unread.
"""

try:
    from jaxtyping import Bool, Float, Int
except ImportError:

    class Bool:
        """Stand in for jaxtyping's type of the same name."""

        def __class_getitem__(cls, item: tuple) -> type:
            """Return the array type that the shape was written for."""
            return item[0]

    Float = Int = Bool

__all__ = ["Bool", "Float", "Int"]
