"""Estimators in the manner of scikit-learn: classifiers, regressors, a tagger and a translator of sequences, and a
forecaster of series."""

from fusedrnn.estimators.forecaster import Forecaster
from fusedrnn.estimators.many_to_one import SequenceClassifier, SequenceRegressor
from fusedrnn.estimators.tagger import SequenceTagger
from fusedrnn.estimators.translator import SequenceTranslator

__all__ = ["Forecaster", "SequenceClassifier", "SequenceRegressor", "SequenceTagger", "SequenceTranslator"]
