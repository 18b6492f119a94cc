"""Whether target features cluster as the network classifies them."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from da.ops.seeding import derive_seed
from da.selection.base import Evidence, Score

STARTS = 10


class ClassAMI(Score):
    """Adjusted mutual information of predicted classes and a clustering of the target's features.

    The clusters are those of k-means, as many as there are classes (Musgrave, Belongie, Lim 2022,
    Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation).
    It starts ten times, where today's default of scikit-learn is once: fewer of its results depend
    on the seed.
    """

    def __call__(self, evidence: Evidence) -> float:
        """The score, at most 1, and 0 in expectation of clusters that know nothing of classes.

        It is 0 also where one class alone is predicted, or all features are equal.
        """
        target = evidence.target
        return class_cluster_agreement(target.logits, target.features, evidence.seed)


def class_cluster_agreement(logits: Tensor, features: Tensor, seed: int = 0) -> float:
    """AMI(argmax of the logits, k-means of the features).

    Where either is one group it is 0: the AMI of one group with one group is 1, and would choose a
    network that tells nothing apart.

    Args:
        logits: ``(N, K)`` float; k-means looks for min(K, number of different features) clusters.
        features: ``(N, F)`` float.
        seed: of the starts of k-means.
    """
    predicted = logits.argmax(dim=1).numpy()
    # Different features in an order of their own: clusters don't depend on that of the images.
    points, place, number = np.unique(
        features.numpy(), axis=0, return_inverse=True, return_counts=True
    )
    if len(points) == 1 or (predicted == predicted[0]).all():
        return 0.0
    state = derive_seed(seed, "ClassAMI") % 2**32
    means = KMeans(min(logits.shape[1], len(points)), n_init=STARTS, random_state=state)
    clusters = means.fit(points, sample_weight=number).labels_[place.ravel()]
    return float(adjusted_mutual_info_score(predicted, clusters))
