"""Experiments in other programs: optuna-dashboard, TensorBoard, MLflow."""
