"""How far gradients may reach, unless a training says otherwise."""

#: Largest norm of the gradient of all parameters, the same for every method and normaliser.
#: Without a limit the features of a network under WeightAlign alone grow without bound under an
#: adversarial loss at published rates (docs/results.md, "What grows"); batch norm holds their
#: scale, and its gradients seldom reach this one. Published settings clip nothing, and say so.
GRADIENT_CLIP_VAL = 5.0
