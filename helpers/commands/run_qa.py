"""Fine-tune a model that finds answers in a context, with or without a recipe, and export it."""

from dataclasses import dataclass

from helpers import sources
from helpers.commands.arguments import DataArguments, flag
from helpers.commands.running import run
from helpers.question_answering import QuestionAnswering, load_question_answering


@dataclass
class QuestionArguments(DataArguments):
    """Which questions, and how a context becomes windows and windows an answer."""

    max_seq_length: int = flag(384, "tokens of a window: question and its part of the context")
    doc_stride: int = flag(128, "tokens that two neighbouring windows share")
    max_answer_length: int = flag(30, "most tokens of an answer")
    n_best_size: int = flag(20, "answers listed for a question")
    version_2_with_negative: bool = flag(False, "questions may have no answer (SQuAD v2)")
    null_score_diff_threshold: float = flag(0.0, "how much better 'no answer' must score")
    on_bad_answers: str = flag("stop", "answers that are not at answer_start: 'stop' or 'drop'")

    def load(self) -> QuestionAnswering:
        """Return the task these flags name; `--train_file` takes several files with commas."""
        return load_question_answering(
            self.title("docs-qa"),
            train_files=sources.several(self.train_file) if self.train_file else None,
            validation_file=self.validation_file,
            max_seq_length=self.max_seq_length,
            doc_stride=self.doc_stride,
            max_answer_length=self.max_answer_length,
            n_best_size=self.n_best_size,
            version_2_with_negative=self.version_2_with_negative,
            null_score_diff_threshold=self.null_score_diff_threshold,
            on_bad_answers=self.on_bad_answers,
            tier=self.tier(),
        )


def main(argv: list[str]) -> int:
    """SQuAD and whatever has its form."""
    return run("run_qa", QuestionArguments, argv)
