import numpy as np

from univert.metrics.inputs import label_codes


def test_codes_follow_the_names_not_the_rows() -> None:
    one, other = label_codes(["b", None, "a"], np.array(["c", "a"], dtype=object))
    assert one.tolist() == [1, -1, 0]
    assert other.tolist() == [2, 0]
    assert one.dtype == other.dtype == np.int64


def test_integers_stay_and_negative_ones_are_unlabelled() -> None:
    (codes,) = label_codes([7, -5, None, np.int32(3)])
    assert codes.tolist() == [7, -1, -1, 3]
    assert label_codes([None])[0].tolist() == [-1]
