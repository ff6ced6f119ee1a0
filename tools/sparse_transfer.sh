#!/usr/bin/env bash
# The runs behind results/README.md's table of sparse transfer: a sparse encoder once, then one task after the other.
#
# Why a script: it is the command that the stored figures name. It needs TUTORIAL_DATA_DIR, a folder with
# wikitext2/valid.tokens.txt, sst2/train.tsv and so on, and takes minutes to hours. What is finished is not run
# again; a run that was killed goes on from its last checkpoint. EPOCHS=4 before the command transfers for that
# many epochs, a whole number, instead of the task's own number.
#
# LEVEL is 80 (without a word), 90 or 80_block4. A SEED other than 42 has a dense model and stops of its own.
#
# TUTORIAL_DATA_DIR=... bash tools/sparse_transfer.sh upstream80|upstream90|upstream80_block4
# TUTORIAL_DATA_DIR=... bash tools/sparse_transfer.sh sst2|mrpc|stsb|ag_news|conll2003|squad [LEVEL] [transfer|compare] [SEED]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

WHAT=${1:?upstream80, upstream90, upstream80_block4 or a task}
LEVEL=${2:-80}
STOPS=${3:-transfer}
SEED=${4:-42}
OF_SEED=$([ "$SEED" = 42 ] || echo "-seed$SEED")
DATA=${TUTORIAL_DATA_DIR:?a folder of well-known data sets}
RUNS=${TUTORIAL_RUNS:-runs}
PLACE=$RUNS/$WHAT/transfer
TEACHER=(--distill_teacher "$PLACE/dense$OF_SEED")
RESUMABLE=(--save_strategy steps --save_steps 250 --save_total_limit 1)

helpers() {
    .venv/bin/python -m helpers "$@"
}

# SQuAD's own validation contexts are left out: questions about them are what the transfer is measured on.
upstream() {
    local wiki=$DATA/wikitext2 shifts=$DATA/squadshifts start=minilm variables=num_epochs=4
    # 90 % goes on from 80 %, whose zeros its first mask cuts again, so half of the epochs do.
    if [ "$1" = upstream90 ]; then
        start=$RUNS/upstream/upstream80 variables=num_epochs=2,init_sparsity=0.8
    fi
    helpers sparsify_upstream --dataset_name wiki-and-squad --model_name_or_path "$start" \
        --train_file "$wiki/valid.tokens.txt,$wiki/wiki.test.raw.txt,$DATA/squad/train-part-v1.1.json,$shifts/new_wiki_v1.0.json,$shifts/amazon_reviews_v1.0.json" \
        --validation_split_percentage 2 --max_seq_length 128 --recipe "minilm-6layers_$1" \
        --recipe_args "$variables" "${RESUMABLE[@]}" --output_dir "$RUNS/upstream/$1"
}

# TASK: data flags, length, batch, the dense model's learning rate and epochs, those of the transfer.
settings() {
    case $1 in
    sst2) COMMAND=run_glue LENGTH=128 BATCH=32 RATE=5e-5 DENSE=3 TRANSFER=2 QUANT=2 ;;
    mrpc) COMMAND=run_glue LENGTH=128 BATCH=16 RATE=1e-4 DENSE=5 TRANSFER=5 QUANT=2 ;;
    stsb) COMMAND=run_glue LENGTH=128 BATCH=16 RATE=1e-4 DENSE=4 TRANSFER=4 QUANT=2 ;;
    ag_news) COMMAND=run_glue LENGTH=128 BATCH=32 RATE=1e-4 DENSE=2 TRANSFER=2 QUANT=2 ;;
    conll2003) COMMAND=run_ner LENGTH=128 BATCH=16 RATE=1e-4 DENSE=3 TRANSFER=3 QUANT=2 ;;
    squad) COMMAND=run_qa LENGTH=384 BATCH=16 RATE=1e-4 DENSE=2 TRANSFER=2 QUANT=0.8 ;;
    *) echo "No task '$1'. Expected sst2, mrpc, stsb, ag_news, conll2003 or squad." >&2 && exit 2 ;;
    esac
    TRANSFER=${EPOCHS:-$TRANSFER}
    [[ $TRANSFER =~ ^[1-9][0-9]*$ ]] || { echo "EPOCHS is '$TRANSFER'. Expected a whole number." >&2 && exit 2; }
    DATA_FLAGS=(--dataset_name "$1")
    if [ "$1" = conll2003 ]; then
        DATA_FLAGS+=(--train_file "$DATA/conll2003/train.txt" --validation_file "$DATA/conll2003/valid.txt")
    elif [ "$1" = squad ]; then
        DATA_FLAGS+=(--train_file "$DATA/squad/train-part-v1.1.json,$DATA/squadshifts/new_wiki_v1.0.json,$DATA/squadshifts/amazon_reviews_v1.0.json"
            --validation_file "$DATA/squad/dev-v1.1.json" --doc_stride 128
            --evaluation_strategy no)  # once, at the end: its 10,570 questions take minutes
    fi
}

train() {  # STOP START FLAGS...
    local stop=$1$OF_SEED start=$2
    shift 2
    helpers "$COMMAND" "${DATA_FLAGS[@]}" --model_name_or_path "$start" --max_seq_length "$LENGTH" \
        --per_device_train_batch_size "$BATCH" --learning_rate "$RATE" "${RESUMABLE[@]}" \
        --seed "$SEED" --output_dir "$PLACE/$stop" "$@"
}

# Dropout is noise in the hidden states that are compared.
transfer() {
    local taught=("${TEACHER[@]}" --dropout 0)
    train dense minilm --num_train_epochs "$DENSE"
    train "transfer$LEVEL" "$RUNS/upstream/upstream$LEVEL" --recipe minilm-6layers_transfer_states \
        --recipe_args "num_epochs=$TRANSFER" "${taught[@]}"
    train "transfer${LEVEL}_quant" "$PLACE/transfer$LEVEL$OF_SEED" --recipe minilm-6layers_quant_states \
        --recipe_args "num_epochs=$QUANT" "${taught[@]}"
}

# To compare with: what transfer costs at least, without a teacher and so without a dense model, in half of the
# epochs; and the dense model of this task, pruned for as many epochs and taught by its answers alone.
compare() {
    local taught=("${TEACHER[@]}")
    # A score has no softened answer that could be taught (helpers/teaching.py).
    [ "$WHAT" != stsb ] || taught=()
    train dense minilm --num_train_epochs "$DENSE"
    train "transfer${LEVEL}_alone" "$RUNS/upstream/upstream$LEVEL" --recipe minilm-6layers_transfer \
        --recipe_args "num_epochs=$((TRANSFER > 1 ? TRANSFER / 2 : 1))"
    if [ -f "recipes/minilm-6layers_prune$LEVEL.md" ]; then
        train "prune$LEVEL" "$PLACE/dense$OF_SEED" --recipe "minilm-6layers_prune$LEVEL" \
            --recipe_args "num_epochs=$TRANSFER,init_lr=$RATE" ${taught[@]+"${taught[@]}"}
    fi
}

case $LEVEL:$STOPS in
80:transfer | 80:compare | 90:transfer | 90:compare | 80_block4:transfer | 80_block4:compare) ;;
*) echo "No '$LEVEL $STOPS'. Expected 80, 90 or 80_block4, then transfer or compare." >&2 && exit 2 ;;
esac
case $WHAT in
upstream*) upstream "$WHAT" ;;
*) settings "$WHAT" && "$STOPS" ;;
esac
