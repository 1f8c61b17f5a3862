"""Lyle et al., "Disentangling the Causes of Plasticity Loss in Neural Networks" (2024), figure by
figure.
"""
