"""What every classifier asks of its number of classes."""


def check_ways(name: str, ways: int) -> None:
    """Raises `ValueError` where there are fewer than two ways.

    >>> check_ways("prototypical", 1)
    Traceback (most recent call last):
    ...
    ValueError: prototypical: 1 ways; a classification needs at least 2.
    """
    if ways < 2:
        raise ValueError(f"{name}: {ways} ways; a classification needs at least 2.")
