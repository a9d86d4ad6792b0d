"""A second family of models, as a loose file brings it: read in both directions, and unable to decode."""

import json
from pathlib import Path

import torch
from torch import nn

import hookline
from hookline import Architecture, Family, Head


class Net(nn.Module):
    """One layer of attention in which every token sees every other. Token V stands for one that is to be guessed."""

    def __init__(self, vocabulary, width, context):
        super().__init__()
        self.shape = {"vocabulary": vocabulary, "width": width, "context": context}
        self.tokens = nn.Embedding(vocabulary + 1, width)
        self.places = nn.Embedding(context, width)
        self.mix = nn.MultiheadAttention(width, 2, batch_first=True)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, ids_BL, there_BL, place_BL):
        x_BLH = self.tokens(ids_BL) + self.places(place_BL.clamp(max=self.shape["context"] - 1))
        return x_BLH + self.mix(x_BLH, x_BLH, x_BLH, key_padding_mask=~there_BL, need_weights=False)[0]


class TinyEncoder(Architecture):
    class Config(hookline.Config):
        width: int = 16
        context: int = 64

    def build(self, tokenizer):
        return Net(tokenizer.vocabulary, self.config.width, self.config.context)


class Bidirectional(Family):
    """`before` sees the whole row but the scored tokens, `after` sees all of it, `row` is the mean over `after`."""

    sides = frozenset({"before", "after", "row"})

    def empty(self, folder):
        return Net(**json.loads((Path(folder) / "config.json").read_text()))

    def save_config(self, net, folder):
        (folder / "config.json").write_text(json.dumps(net.shape))

    def context(self, net):
        return net.shape["context"]

    def width(self, net):
        return net.shape["width"]

    def vocabulary(self, net):
        return net.shape["vocabulary"]

    def output(self, net):
        return net.output.weight, net.output.bias

    def states(self, net, batch, sides):
        """Prompt and response keep their padding between them: nothing here is side by side."""
        P, T = batch.prompt_ids_BP.shape[1], batch.token_ids_BT.shape[1]
        device = batch.token_ids_BT.device
        there_BP = torch.arange(P, device=device) < batch.prompt_length_B[:, None]
        there_BT = torch.arange(T, device=device) < batch.length_B[:, None]
        there_BL = torch.cat([there_BP, there_BT], 1)
        place_BL = torch.cat(
            [there_BP.cumsum(1) - 1, batch.prompt_length_B[:, None] + torch.arange(T, device=device)], 1
        )
        hidden = {}
        for view in {"before"} & set(sides), {"after", "row"} & set(sides):
            if view:
                guessed = batch.mask_BT & ("before" in view)
                shown_BT = batch.token_ids_BT.masked_fill(guessed, net.shape["vocabulary"])
                found_BLH = net(torch.cat([batch.prompt_ids_BP, shown_BT], 1), there_BL, place_BL)
                hidden |= dict.fromkeys(view - {"row"}, found_BLH[:, P:][batch.mask_BT])
                if "row" in view:
                    weight_BL1 = there_BL[..., None] / there_BL.sum(1)[:, None, None]
                    hidden["row"] = (found_BLH * weight_BL1).sum(1)
        return hidden

    def logits(self, net, batch):
        return net.output(self.states(net, batch, {"before"})["before"])


class Pooling(Bidirectional):
    """The same without log-probs: it reads rows, and nothing else."""

    sides = frozenset({"row"})

    def output(self, net):
        return None


class PooledReward(Head):
    """One number per row."""

    reads = "row"

    def build(self, hidden_size):
        return nn.Linear(hidden_size, 1)
