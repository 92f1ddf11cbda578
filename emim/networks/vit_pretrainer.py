"""Masked pre-training of the vision transformer: MAE and SimMIM over (modality, patch) tokens.

``mae`` (arXiv 2111.06377): what is hidden does not enter the encoder, so three quarters hidden make a step
several times cheaper. The decoder asks for every patch of every modality by place and modality alone and
attends to the encoded tokens only, not to the other questions (CrossMAE, arXiv 2401.14391): attention
over all tokens of all modalities would cost more than the encoder.

``mim`` (SimMIM, arXiv 2111.09886): tokens that stand for what is hidden go through the encoder. The decoder
is one linear map (``linear``) or more transformer blocks before it.
"""

from __future__ import annotations

import torch
from torch import nn

from emim.config import NetworkConfig, PretrainConfig
from emim.errors import EmimError
from emim.masking.units import from_units
from emim.networks.positions import Rotation, places, sine_positions
from emim.networks.token_index import TokenIndex
from emim.networks.transformer import Block, initialise
from emim.networks.vit import VisionTransformer, mean_over_modalities
from emim.objectives.half_view import Half

DECODER_BLOCKS = {"linear": 0, "light": 2, "deep": 8}


class VitPretrainer(nn.Module):
    """Reconstructs the hidden part of a crop and gives one level of features.

    Args:
        modalities: number of modalities M.
        config: ``network``, ``objective`` and ``decoder`` count.

    Raises:
        EmimError: for ``mae`` with a linear decoder.
    """

    def __init__(self, modalities: int, config: PretrainConfig) -> None:
        super().__init__()
        self.drops = config.objective == "mae"
        if self.drops and config.decoder == "linear":
            raise EmimError(
                "A linear decoder cannot reconstruct tokens that never entered the encoder.",
                hint="Choose decoder=light, or objective=mim.",
            )
        self.encoder = VisionTransformer(modalities, config.network)
        blocks = DECODER_BLOCKS[config.decoder]
        if self.drops:
            self.decoder = QueryDecoder(modalities, config.network, blocks)
        else:
            self.mask_token = nn.Parameter(torch.zeros(config.network.width))
            self.decoder = TokenDecoder(config.network, blocks)

    def encode(self, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Features [(B, C, z, y, x)], one per patch, of ``x`` (B, M, Z, Y, X) without what is ``hidden``.

        At each place the mean over the modalities visible there. Where none is: with ``mae`` the mean of all
        tokens of the sample, with ``mim`` that of the tokens that stand for the hidden ones.
        ``hidden`` is boolean, of the shape of ``x`` or (B, M); a patch counts as hidden when a voxel is.
        """
        visible = self.encoder.visible(x, hidden)
        return [self._features(x, visible, *self._encoded(x, visible))]

    @torch.no_grad()
    def encode_half(self, x: torch.Tensor, absent: torch.Tensor, half: Half) -> list[torch.Tensor]:
        """Features of one half of ``x``, for comparison only: without gradient.

        Tokens beyond the half, and those of modalities that are ``absent`` (B, M), do not enter the encoder,
        whatever the objective. Even so they are twice as many as those of a masked view at a ratio of
        0.75; their gradient would cost more than all else in a step of ``mae``.
        """
        tokens = torch.zeros(self.encoder.grid(x), dtype=torch.bool, device=x.device)
        half.of(tokens[None, None]).fill_(True)
        visible = ~absent[:, :, None] & tokens.flatten()
        features = self._means(x, visible, *self._encoded_visible(x, visible))
        return [half.of(features)]

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Reconstruction (B, M, Z, Y, X) and features of the masked view."""
        visible = self.encoder.visible(x, hidden)
        tokens, index = self._encoded(x, visible)
        if self.drops:
            patches = self.decoder(tokens, index, self.encoder.grid(x))
        else:
            patches = self.decoder(tokens, self.encoder.place(x)).unflatten(1, visible.shape[1:])
        reconstruction = from_units(patches, self.encoder.side, tuple(x.shape[-3:]))
        return reconstruction, [self._features(x, visible, tokens, index)]

    def _encoded(self, x: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, TokenIndex]:
        """Encoded tokens: with ``mae`` a padded batch of the visible ones, else all, (B, M · N, C)."""
        if self.drops:
            return self._encoded_visible(x, visible)
        index = TokenIndex.of(visible)
        tokens = self.encoder.embed(x, index)
        stand_in = self.mask_token + self.encoder.modality[:, None] + self.encoder.positions(x)
        tokens = index.place(tokens, stand_in.to(tokens.dtype).expand(len(x), -1, -1, -1))
        return self.encoder(tokens.flatten(1, 2), self.encoder.place(x))[-1], index

    def _encoded_visible(self, x: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, TokenIndex]:
        index = TokenIndex.of(visible)
        return self.encoder.encode_visible(x, index)[-1], index

    def _features(
        self, x: torch.Tensor, visible: torch.Tensor, tokens: torch.Tensor, index: TokenIndex
    ) -> torch.Tensor:
        if self.drops:
            return self._means(x, visible, tokens, index)
        visible = visible | ~visible.any(1, keepdim=True)
        return mean_over_modalities(tokens.unflatten(1, visible.shape[1:]), visible, self.encoder.grid(x))

    def _means(
        self, x: torch.Tensor, visible: torch.Tensor, tokens: torch.Tensor, index: TokenIndex
    ) -> torch.Tensor:
        background = tokens.new_zeros(*visible.shape, tokens.shape[-1])
        tokens = index.place(index.unpad(tokens), background)
        return mean_over_modalities(tokens, visible, self.encoder.grid(x))


class QueryDecoder(nn.Module):
    """Asks encoded tokens for the patch at each place of each modality.

    It is two thirds as wide as the encoder (MAE's 512 for 768).
    """

    def __init__(self, modalities: int, network: NetworkConfig, blocks: int) -> None:
        super().__init__()
        heads = max(1, round(network.heads * 2 / 3))
        self.head_width = network.width // network.heads
        self.width = self.head_width * heads
        self.enter = nn.Linear(network.width, self.width)
        self.norm_context = nn.LayerNorm(self.width)
        self.modality = nn.Parameter(torch.empty(modalities, self.width))
        self.blocks = nn.ModuleList(Block(self.width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(self.width)
        self.head = nn.Linear(self.width, network.patch**3)
        initialise(self)
        nn.init.normal_(self.modality, std=0.02)

    def forward(self, tokens: torch.Tensor, index: TokenIndex, grid: tuple[int, int, int]) -> torch.Tensor:
        """Patches (B, M, N, voxels) from encoded ``tokens``, a padded batch (B, L, C)."""
        known = sine_positions(grid, self.width, tokens.device)
        queries = (self.modality[:, None] + known).flatten(0, 1).expand(len(tokens), -1, -1)
        context = self.norm_context(self.enter(tokens) + index.pad(known[index.patch]))
        where = places(grid, tokens.device)
        asked = Rotation.at(where.repeat(len(self.modality), 1), self.head_width)
        told = Rotation.at(index.pad(where[index.patch]), self.head_width)
        for block in self.blocks:
            queries = block(queries, asked, context, told, index.keep)
        return self.head(self.norm(queries)).unflatten(1, index.shape[1:])


class TokenDecoder(nn.Module):
    """Patches from tokens that are all in their places: transformer blocks, if any, and a linear map."""

    def __init__(self, network: NetworkConfig, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(network.width, network.heads) for _ in range(blocks))
        # The encoder's output is normalised already.
        self.norm = nn.LayerNorm(network.width) if blocks else nn.Identity()
        self.head = nn.Linear(network.width, network.patch**3)
        initialise(self)

    def forward(self, tokens: torch.Tensor, place: Rotation) -> torch.Tensor:
        """Map (B, L, C) at ``place`` to (B, L, voxels)."""
        for block in self.blocks:
            tokens = block(tokens, place)
        return self.head(self.norm(tokens))
