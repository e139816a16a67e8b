"""What many runs say together: ablation studies, comparisons, evaluation on another corpus."""
