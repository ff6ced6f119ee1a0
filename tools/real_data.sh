#!/usr/bin/env bash
# The runs behind results/README.md's table of real data sets: dense, 80 % sparse, 80 % sparse and int8.
#
# Why a script: it is the command that the stored figures name. It needs TUTORIAL_DATA_DIR, a folder with
# mrpc/train.tsv and so on (helpers/catalogue.py), and takes minutes to hours. What is finished is not run again;
# a run that was killed goes on from its last checkpoint, but for prune80 of MRPC and SQuAD: the Surgeon starts anew.
#
# TUTORIAL_DATA_DIR=... bash tools/real_data.sh mrpc|stsb|conll2003|go_emotions|squad
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

TASK=${1:?one of mrpc, stsb, conll2003, go_emotions, squad}
DATA=${TUTORIAL_DATA_DIR:?a folder of well-known data sets}
PLACE=${TUTORIAL_RUNS:-runs}/$TASK/full

# Small sets prune for more epochs, in small batches: healing takes steps, and their epochs have few. Where rows are
# few the recipes' own learning rates, 4e-4 and 3e-4, are too high: on STS-B the model collapses in the first epoch.
# MRPC and SQuAD learn the dense model's hidden states, too: by magnitude, taught the answers alone, they keep 0.9.
PRUNE_RATE=4e-4 QUANT_RATE=3e-4 PRUNER=minilm-6layers_prune80 HARDNESS=0.5
QUANTIZER=minilm-6layers_quant DROPOUT=() MEASURED=epoch
case $TASK in
mrpc)
    COMMAND=run_glue LENGTH=128 BATCH=16 RATE=1e-4 DENSE=5 PRUNE=10 QUANT=5 PRUNE_RATE=2e-4 QUANT_RATE=2e-4
    PRUNER=minilm-6layers_obs80_states QUANTIZER=minilm-6layers_quant_states HARDNESS=1.0
    ;;
stsb) COMMAND=run_glue LENGTH=128 BATCH=16 RATE=1e-4 DENSE=4 PRUNE=8 QUANT=2 PRUNE_RATE=1e-4 QUANT_RATE=1e-4 ;;
conll2003) COMMAND=run_ner LENGTH=128 BATCH=16 RATE=1e-4 DENSE=3 PRUNE=4 QUANT=1 ;;
go_emotions) COMMAND=run_glue LENGTH=64 BATCH=32 RATE=1e-4 DENSE=2 PRUNE=2 QUANT=1 PRUNE_RATE=2e-4 ;;
squad)
    COMMAND=run_qa LENGTH=384 BATCH=16 RATE=1e-4 DENSE=2 PRUNE=1.8 QUANT=2.3 PRUNE_RATE=3e-4 QUANT_RATE=3e-4
    PRUNER=minilm-6layers_obs80_states QUANTIZER=minilm-6layers_quant_states
    # It goes over its rows too few times to learn them by heart, and is trained without dropout, and hidden states
    # teach more a row than answers; it is measured once, at the end, as its 10,570 questions take minutes.
    HARDNESS=1.0 DROPOUT=(--dropout 0) MEASURED=no
    ;;
*) echo "No data set '$TASK'. Expected mrpc, stsb, conll2003, go_emotions or squad." >&2 && exit 2 ;;
esac

DATA_FLAGS=(--dataset_name "$TASK")
# MRPC's own dev rows are part of its training file here, so it is measured on its test rows.
if [ "$TASK" = conll2003 ]; then
    DATA_FLAGS+=(--train_file "$DATA/conll2003/train.txt" --validation_file "$DATA/conll2003/valid.txt")
elif [ "$TASK" = squad ]; then
    SHIFTS=$DATA/squadshifts
    DATA_FLAGS+=(--train_file "$DATA/squad/train-part-v1.1.json,$SHIFTS/new_wiki_v1.0.json,$SHIFTS/amazon_reviews_v1.0.json"
        --validation_file "$DATA/squad/dev-v1.1.json" --doc_stride 128)
fi
# A score has no softened answer that could be taught (helpers/teaching.py), so STS-B has no teacher here.
LAST=prune80_quant_distill TEACHER=(--distill_teacher "$PLACE/dense" --distill_hardness "$HARDNESS")
[ "$TASK" != stsb ] || LAST=prune80_quant TEACHER=()

train() {  # STOP START FLAGS...
    local stop=$1 start=$2
    shift 2
    .venv/bin/python -m helpers "$COMMAND" "${DATA_FLAGS[@]}" --model_name_or_path "$start" \
        --max_seq_length "$LENGTH" --per_device_train_batch_size "$BATCH" --learning_rate "$RATE" \
        --evaluation_strategy "$MEASURED" --save_strategy steps --save_steps 200 --save_total_limit 1 \
        ${DROPOUT[@]+"${DROPOUT[@]}"} --output_dir "$PLACE/$stop" "$@"
}

train dense minilm --num_train_epochs "$DENSE"
train prune80 "$PLACE/dense" --recipe "$PRUNER" \
    --recipe_args "num_epochs=$PRUNE,init_lr=$PRUNE_RATE" ${TEACHER[@]+"${TEACHER[@]}"}
train "$LAST" "$PLACE/prune80" --recipe "$QUANTIZER" \
    --recipe_args "num_epochs=$QUANT,init_lr=$QUANT_RATE" ${TEACHER[@]+"${TEACHER[@]}"}
[ -d "$PLACE/$LAST-onnx" ] || .venv/bin/python -m helpers export "$PLACE/$LAST" \
    "${DATA_FLAGS[@]}" --max_seq_length "$LENGTH" --onnx_export_path "$PLACE/$LAST-onnx"
TUTORIAL_TIER=full .venv/bin/python -m helpers results --collect "$TASK" --command "bash tools/real_data.sh $TASK"
