"""A linear classifier that tells the features of two domains apart."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def domain_classifier(
    strengths: Sequence[float], folds: int, seed: int, scoring: str | None = None
) -> GridSearchCV:
    """A logistic regression on standardised features, not fitted yet.

    Its regularisation is chosen in cross-validation.

    Args:
        strengths: inverse strengths of the regularisation to choose from.
        folds: of the cross-validation.
        seed: of the folds.
        scoring: what is chosen by, as scikit-learn names it; the accuracy without.
    """
    return GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        {"logisticregression__C": strengths},
        scoring=scoring,
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32),
    )
