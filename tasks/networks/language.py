"""Language models: integer tokens [B, L] -> logits [B, L, vocabulary]; each window starts afresh."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.networks.keyed import KeyedDropout


class LSTM(nn.Module):
    """Embedding, `layers` LSTM layers, and a decoder whose weights are the embedding's if `tied`.

    Dropout stands on the embedding, between the layers and before the decoder (Zaremba et al. 2014).

    Raises:
        ValueError: if `tied` and the sizes of embedding and hidden state differ.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 128,
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if tied and embedding != hidden:
            raise ValueError(f"tied weights need embedding == hidden, not {embedding} and {hidden}; set tied: false.")
        self.embedding = nn.Embedding(vocabulary, embedding)
        sizes = [embedding] + [hidden] * layers
        self.layers = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes[:-1])
        self.dropouts = nn.ModuleList(KeyedDropout(dropout) for _ in sizes)
        self.decoder = nn.Linear(hidden, vocabulary)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.embedding.weight
        else:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, L, vocabulary]."""
        x = self.dropouts[0](self.embedding(tokens))
        for layer, dropout in zip(self.layers, self.dropouts[1:], strict=True):
            x = dropout(layer(x)[0])
        return self.decoder(x)


class Transformer(nn.Module):
    """A decoder-only Transformer, normalization first, learned positions, tied weights (GPT-2's form)."""

    def __init__(
        self,
        vocabulary: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        context: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}; choose heads that divide it.")
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = KeyedDropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(width, vocabulary, bias=False)
        self.decoder.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:  # GPT-2: 0.02, and smaller where 2 x layers branches are summed
                branch = name.endswith("out.weight")
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if branch else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, L, vocabulary].

        Raises:
            ValueError: if a window is longer than `context`.
        """
        length, context = tokens.shape[1], self.positions.num_embeddings
        if length > context:
            raise ValueError(f"a window has {length} tokens but the context is {context}; set context to {length}.")
        x = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.decoder(self.norm(x))


class _Block(nn.Module):
    """Causal self-attention (without dropout) and a GELU layer of 4 x width, each a residual branch."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropouts = nn.ModuleList(KeyedDropout(dropout) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.hidden = nn.Linear(width, 4 * width)
        self.hidden_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropouts[0](self.attention(self.norms[0](x)))
        return x + self.dropouts[1](self.hidden_out(F.gelu(self.hidden(self.norms[1](x)))))

    def attention(self, x: Tensor) -> Tensor:
        """Return what each position takes from those before it, [B, L, width]."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))
