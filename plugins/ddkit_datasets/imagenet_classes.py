"""Classes of the six ImageNet subsets, in label order, and how ImageNet is normalised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# WNID and name, as in MTT's helper module; its four other lists agree with NCFM's.
SUBSETS = {
    "imagenette": """
        n01440764 tench
        n02102040 English springer
        n02979186 cassette player
        n03000684 chain saw
        n03028079 church
        n03394916 French horn
        n03417042 garbage truck
        n03425413 gas pump
        n03445777 golf ball
        n03888257 parachute""",
    "imagewoof": """
        n02096294 Australian terrier
        n02093754 Border terrier
        n02111889 Samoyed
        n02088364 beagle
        n02086240 Shih-Tzu
        n02089973 English foxhound
        n02087394 Rhodesian ridgeback
        n02115641 dingo
        n02099601 golden retriever
        n02105641 Old English sheepdog""",
    "imagefruit": """
        n07753275 pineapple
        n07753592 banana
        n07745940 strawberry
        n07747607 orange
        n07749582 lemon
        n07768694 pomegranate
        n07753113 fig
        n07720875 bell pepper
        n07718472 cucumber
        n07742313 Granny Smith""",
    "imageyellow": """
        n02206856 bee
        n12057211 yellow lady's slipper
        n07753592 banana
        n07749582 lemon
        n12144580 corn
        n04146614 school bus
        n03530642 honeycomb
        n02129165 lion
        n01773157 black and gold garden spider
        n01531178 goldfinch""",
    "imagemeow": """
        n02123045 tabby
        n02123159 tiger cat
        n02123394 Persian cat
        n02123597 Siamese cat
        n02124075 Egyptian cat
        n02129165 lion
        n02129604 tiger
        n02128925 jaguar
        n02128757 snow leopard
        n02127052 lynx""",
    "imagesquawk": """
        n01806143 peacock
        n02007558 flamingo
        n01818515 macaw
        n02051845 pelican
        n02056570 king penguin
        n01614925 bald eagle
        n01843383 toucan
        n01518878 ostrich
        n01860187 black swan
        n01819313 sulphur-crested cockatoo""",
}

# What NCFM has in the place of a class of MTT's.
_NCFM = {
    "imagefruit": {"n07742313": ("n07760859", "custard apple")},
    "imageyellow": {"n01773157": ("n01773797", "garden spider")},
}


def subset(name: str, variant: str = "mtt") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return WNIDs and class names of a subset, in label order, as `variant` publishes them."""
    pairs = [tuple(line.split(maxsplit=1)) for line in SUBSETS[name].strip().splitlines()]
    if variant == "ncfm":
        pairs = [_NCFM.get(name, {}).get(wnid, (wnid, label)) for wnid, label in pairs]
    return tuple(wnid for wnid, _ in pairs), tuple(label for _, label in pairs)


def unique(names: Sequence[str], wnids: Sequence[str]) -> tuple[str, ...]:
    """Return `names`, those that several classes share followed by the WNID."""
    counts = Counter(names)
    pairs = zip(names, wnids, strict=True)
    return tuple(n if counts[n] == 1 else f"{n} ({wnid})" for n, wnid in pairs)
