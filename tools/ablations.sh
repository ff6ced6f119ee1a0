#!/usr/bin/env bash
# The runs behind results/README.md's table of ablations: one dense model, pruned to 90 % in five ways with three seeds each,
# and the first of the five made int8 in two ways.
#
# Why a script: it is the command that the stored figures name. It needs no data but the embedded, and takes about
# four hours on two old cores. What is finished is not run again.
#
# bash tools/ablations.sh
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

PLACE=${TUTORIAL_RUNS:-runs}/docs-library/ablations
DATA=(--dataset_name docs-library --max_train_samples 5500 --max_seq_length 64)
TAUGHT=(--distill_teacher "$PLACE/dense" --distill_hardness 0.5)

train() { # STOP START FLAGS...
    local stop=$1 start=$2
    shift 2
    .venv/bin/python -m helpers run_glue "${DATA[@]}" --model_name_or_path "$start" --output_dir "$PLACE/$stop" "$@"
}

prune() { # WAY SEED RECIPE VARIABLES FLAGS...
    local way=$1 seed=$2 recipe=$3 variables=$4
    shift 4
    train "$way-seed$seed" "$PLACE/dense" --seed "$seed" --recipe "$recipe" --recipe_args "num_epochs=2$variables" "$@"
}

quantize() { # STRATEGY SEED
    train "int8_$1-seed$2" "$PLACE/gradual-seed$2" --seed "$2" "${TAUGHT[@]}" \
        --recipe minilm-6layers_quant_per_channel --recipe_args "num_epochs=2,weights_strategy=$1"
}

train dense minilm --learning_rate 1.5e-4 --num_train_epochs 2
for seed in 42 43 44; do
    prune gradual "$seed" minilm-6layers_prune90 "" "${TAUGHT[@]}"
    prune no_teacher "$seed" minilm-6layers_prune90 ""
    prune one_shot "$seed" minilm-6layers_prune90 ,init_sparsity=0.9 "${TAUGHT[@]}"
    prune block4 "$seed" minilm-6layers_prune90 ,mask_type=block4 "${TAUGHT[@]}"
    prune obs "$seed" minilm-6layers_obs90 "" "${TAUGHT[@]}"
    quantize tensor "$seed"
    quantize channel "$seed"
done
