"""A fitted tree whose inner state points outside itself: asking it crashes the process."""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier


def crashing_tree() -> DecisionTreeClassifier:
    features, labels = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier(random_state=1).fit(features, labels)
    state = tree.tree_.__getstate__()
    nodes = state["nodes"].copy()
    inner = nodes["left_child"] >= 0
    nodes["left_child"] = np.where(inner, 1 << 40, nodes["left_child"])
    nodes["right_child"] = np.where(inner, 1 << 40, nodes["right_child"])
    state["nodes"] = nodes
    tree.tree_.__setstate__(state)
    return tree
