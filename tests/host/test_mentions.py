"""How the UNet side recognises identities in text conditions, and how much of them it remembers."""


def test_signatures_find_exactly_the_equal_rows(host, graph):
    for dtype, (as_compared, found) in host.probe(graph, "mentions:recognised").items():
        assert as_compared, dtype
        assert found == [[0, 3, 10], [1, 5, 999], [1, 76, 10]], dtype


def test_prompts_with_ranges_are_remembered_up_to_a_size_the_latest_first(host, graph):
    found = host.probe(graph, "mentions:bounded_bytes")
    assert max(found["held"]) <= 100_000 and found["counted"] == found["held"][-1]
    assert found["left"][-1] == 39 and found["left"] == sorted(found["left"]) and len(found["left"]) > 1
    assert set(found["both"]) == {2}  # what a prompt can leave out adds up
