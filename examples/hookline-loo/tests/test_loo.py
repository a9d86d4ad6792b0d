"""Leave-one-out as laws: what must hold whatever the rewards are."""

import torch
from hookline_loo import leave_one_out

REWARD_B = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 3.0], dtype=torch.float64)
GROUP_B = torch.tensor([7, 7, 7, 2, 2, 4])


def test_by_hand():
    assert leave_one_out(REWARD_B, GROUP_B).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]


def test_a_group_sums_to_zero():
    advantage_B = leave_one_out(REWARD_B, GROUP_B)
    for group in GROUP_B.unique():
        assert abs(advantage_B[group == GROUP_B].sum()) < 1e-12


def test_it_is_the_centred_reward_times_n_over_n_minus_one():
    reward_B = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected_B = (reward_B - reward_B.mean()) * 4 / 3
    torch.testing.assert_close(leave_one_out(reward_B, torch.zeros(4)), expected_B)


def test_a_constant_per_prompt_changes_nothing():
    shifted_B = REWARD_B + 10.0 * GROUP_B
    torch.testing.assert_close(leave_one_out(shifted_B, GROUP_B), leave_one_out(REWARD_B, GROUP_B))


def test_order_of_rows_does_not_matter():
    order = torch.tensor([3, 0, 5, 2, 4, 1])
    shuffled_B = leave_one_out(REWARD_B[order], GROUP_B[order])
    torch.testing.assert_close(shuffled_B, leave_one_out(REWARD_B, GROUP_B)[order])


def test_no_rows():
    assert leave_one_out(torch.zeros(0), torch.zeros(0)).shape == (0,)
