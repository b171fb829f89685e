"""Arrays and a network of one's own, DM + CMI, judged on that network and one of timm's."""

import sys

from sklearn.datasets import load_digits
from torch import nn

from ddkit import backbone, distill, evaluate

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
images, labels = load_digits(return_X_y=True)
data = images.reshape(-1, 8, 8).repeat(4, 1).repeat(4, 2) / 16, labels


def small(num_classes: int) -> nn.Module:
    maps = nn.Sequential(nn.Conv2d(1, 32, 3), nn.InstanceNorm2d(32), nn.ReLU(), nn.AvgPool2d(6))
    net = nn.Sequential(maps, nn.Flatten(), nn.Linear(800, num_classes))
    return backbone.wrap(net, features="0", classifier="2")


cmi, dm = {"name": "cmi", "weight": 0.01}, {"name": "dm", "iterations": steps}
pool = {"count": 2, "epochs": 1 + steps // 50}
table = {"method": dm, "regularizers": [cmi], "proxies": pool, "eval": {"epochs": steps}}
made = distill(table, dataset=data, backbone=small, proxies=small, progress=True).synthetic
print(*evaluate(made, [small, "timm/resnet10t"], 1, dataset=data).results, sep="\n")
