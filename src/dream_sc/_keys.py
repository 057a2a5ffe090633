"""All storage names. No other file of the package contains one."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1
TECHNICAL, CIS, TRANS, CALIBRATION = "technical", "cis", "trans", "calibration"
CONFOUNDING, COMPARE = "confounding", "compare"
SIZE_FACTOR = "size_factor"
SIZE_FACTORS = "size_factors"  # `.uns`: how each column of size factors was made
NEAR_CIS = "near_cis"  # column of the table of the trans step
DIRECT_TARGET = "direct_target"  # column of the table of the trans step
# of a feature, in `.var`; the first set that is there is read
POSITION_COLUMNS = (("chrom", "start", "end"), ("gene_chr", "gene_start", "gene_end"))
CIS_POSITION = "cis_position"  # of a cis fit, in its entry of `.uns`: where the cis gene was, of how many features
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "symbol", "feature_name")  # in `.var`
FEATURE_TYPES, GENE_EXPRESSION = (
    "feature_types",
    "Gene Expression",
)  # a column of `.var` of a 10x matrix, and genes in it
GUIDE, TARGET, N_GUIDES, NTC = "guide", "target", "n_guides", "NTC"  # of a cell, in `.obs`
COMPLEMENT = "complement"  # control cells that no guide of the controls tells apart
GUIDES = "guides"  # matrix of guides in `.obsm`
GUIDE_IDS, GUIDE_TARGETS = "_ids", "_target"  # appended to the key of a matrix of guides, in `.uns`
# of a modality of guides: its layer of calls, columns with the target, and with whether a guide targets anything
GUIDE_ASSIGNMENT, TARGET_COLUMNS, TARGETING = "guide_assignment", (TARGET, "intended_target_name"), "targeting"
GUIDE_CAPTURE = "CRISPR Guide Capture"  # guides among the features of a 10x matrix
GENE_IDS, GENE_SYMBOLS, GENOME = "gene_ids", "gene_symbols", "genome"  # columns of `.var` of a 10x matrix
IGVF_TARGETS = "igvf_targets"  # `.uns`: targets of guides with their positions, as an IGVF MuData has them
ASSIGNED_GUIDES, ASSIGNED_GUIDE = "assigned_guides", "assigned_guide"  # of pertpy: a layer, a column of `.obs`
TITRATION = "titration"
FROM_FIT = "from_fit"  # entry of `.uns` of counts simulated again from a fit
TRUE_EFFECTS = "true_technical_effects"
# splice modalities: `.uns` entry, layer, columns of `.var`
MODALITY = "modality"
DENOMINATOR = "denominator"
CHROM, START, END, STRAND, GENE = "chrom", "start", "end", "strand", "gene"
DONOR, ACCEPTOR = "donor", "acceptor"
EXON_START, EXON_END = "exon_start", "exon_end"
LEFT, RIGHT, SKIPPING = "junction_left", "junction_right", "junction_skipping"


@dataclass(frozen=True)
class Slots:
    """Where the results of one `key_added` live."""

    key: str

    @property
    def effects(self) -> str:
        """`.varm`: group effects of the technical step."""
        return f"{self.key}_effects"

    @property
    def effects_sd(self) -> str:
        """`.varm`: their standard deviations."""
        return f"{self.key}_effects_sd"

    @property
    def guide(self) -> str:
        """`.obs`: the guide of each cell that has one of the cis gene, or is a control, in the cis step."""
        return f"{self.key}_guide"

    @property
    def guide_set(self) -> str:
        """`.obs`: the set of guides of each cell that has several of the cis gene, where enough cells have it."""
        return f"{self.key}_guide_set"

    @property
    def covariates(self) -> str:
        """`.varm`: coefficients of the covariates of the technical step."""
        return f"{self.key}_covariates"

    @property
    def covariates_sd(self) -> str:
        """`.varm`: their standard deviations."""
        return f"{self.key}_covariates_sd"

    @property
    def ambient(self) -> str:
        """`.varm`: profile of the ambient counts of the technical step; `.obsm`: those of each cell and their share."""
        return f"{self.key}_ambient"

    @property
    def curves(self) -> str:
        """`.varm`: curves of the contexts that were compared, with their bands."""
        return f"{self.key}_curves"

    @property
    def guide_levels(self) -> str:
        """`.varm`: what each guide does in each of these contexts, with its error."""
        return f"{self.key}_guide_levels"

    @property
    def posterior(self) -> str:
        """`.varm`: compact posterior records of the trans step."""
        return f"{self.key}_posterior"


# of every step, in its entry of `.uns`: a name for the result, and what it was made from
ID, MADE_FROM, RESULTS, CATEGORIES_OF = "id", "made_from", "results", "categories of"
CELLS, TAKES_PART, KINDS, NAMES, FEATURES, STEPS = "cells", "takes part", "kinds", "names", "features", "steps"
NO_DOSAGE = "none"  # `dosage=` of a trans fit for which guides act or do not
ACTING = "_acting"  # appended to the key of a trans fit without dosages: its guides, in the form of a cis fit
DOSE = "dose"  # scale of known dosages, in the parameters of a cis step
ZERO = "zero"  # in the axis of a trans fit of doses: the log2 dose at which it has dose 0
TECHNICAL_COLUMNS = ("mu", "mu_sd", "overdispersion", "overdispersion_sd", "status")
COVARIATES = "covariates"  # of a technical fit, in its entry of `.uns`
SCORE_COLUMNS = ("mu", "mu_sd", "sigma", "sigma_sd", "status")
# of a technical fit of a multinomial, in its entry of `.uns`: a table of sticks and their effects, sticks x groups
STICKS, STICK_EFFECTS, STICK_EFFECTS_SD = "sticks", "stick_effects", "stick_effects_sd"
CIS_COLUMNS = ("x_true", "log2_x_true", "log2_sd", "log2_q025", "log2_q975")
# with what an effect is called in place of "effect"; in the order in which they are read
_TRANS_COLUMNS = (
    "on_knockdown",
    "qvalue",
    "confidence",
    "category",
    "effect_full",
    "effect_full_q025",
    "effect_full_q975",
    "log2_ec50",
    "log2_ec50_q025",
    "log2_ec50_q975",
    "p_ec50_inside",
    "class",
    "status",
    "note",
    "score",
    "model",
    "p_class",
    "lfdr",
    "pvalue",
    "log_bf",
    "log_bf_loo",
    "lfdr_graded",
    "qvalue_graded",
    "log_bf_graded",
    "n_guides_support",
    "p_trend_within_targeting",
    "heterogeneity_p",
    "slope_within",
    "slope_within_sd",
    "effect_half",
    "effect_half_q025",
    "effect_half_q975",
    "effect_max",
    "effect_max_q025",
    "effect_max_q975",
    "effect_range",
    "effect_range_q025",
    "effect_range_q975",
    "log2_dosage_full",
    "log2_dosage_max",
    "hill_n",
    "hill_n_q025",
    "hill_n_q975",
    "baseline",
    "amplitude",
    "slope_ntc",
    "inflection",
    "log2_ec50_b",
    "log2_ec50_b_q025",
    "log2_ec50_b_q975",
    "hill_n_b",
    "hill_n_b_q025",
    "hill_n_b_q975",
    "amplitude_b",
    "min_detectable_effect",
    "guide_sd",
    "overdispersion",
    "pareto_k",
    "n_cells",
    "n_capped_cells",
    "mean",
    "centre",
    "scale",
)
# of those, what most readers need; `EC50_TEXT` is made on reading
_MAIN_COLUMNS = (
    "on_knockdown",
    "qvalue",
    "confidence",
    "category",
    "effect_full",
    "effect_full_q025",
    "effect_full_q975",
    "log2_ec50",
    "ec50",
    "class",
    "status",
    "note",
)
CONFIDENCE, EC50_TEXT = "confidence", "ec50"
MEANINGS = "columns"  # of a trans fit, in its entry of `.uns`: what the columns of its table mean
FLAGS = "flags"  # of a trans fit, in its entry of `.uns`: what makes the whole of it doubtful
CATEGORIES = "categories"  # table of the categories of a multinomial with a layer for each, in the entry of `.uns`
# of a category by itself, where it does not have those of its feature
CATEGORY_COLUMNS = (
    "baseline",
    *(f"delta_p_{w}{q}" for w in ("full", "half", "max", "range") for q in ("", "_q025", "_q975")),
)


def trans_columns(effect: str) -> tuple[str, ...]:
    """Columns of the table of the trans step, where an effect is called "log2fc", "delta_p" or "delta"."""
    return tuple(name.replace("effect", effect) for name in _TRANS_COLUMNS)


def main_columns(effect: str) -> tuple[str, ...]:
    """Columns of the short table, in their order."""
    return tuple(name.replace("effect", effect) for name in _MAIN_COLUMNS)


# what `tl.calibrate(replace=True)` puts another number in, and where it keeps what was there
THEORY_COLUMNS = {"pvalue": "pvalue_theory", "qvalue": "qvalue_theory", "qvalue_graded": "qvalue_graded_theory"}
CALIBRATION_TABLES = ("fpr", "regroupings", "features", "qq", "held_out")
# what `tl.check_confounding` stores: tables in its entry of `.uns`, and the columns of its table in `.varm`
CHECKS, CHECKED_GUIDES = "checks", "guides"
EQUAL_DOSAGE_COLUMNS = ("log2_difference", "se", "pvalue")
# what `tl.compare` stores: columns of its table in `.varm`, with what the effect is called in place of "effect", and in
# its entry of `.uns` the names of the contexts, their table where there are several beside the reference, their guides
# and the dosages of the curves
COMPARE_TEXTS = ("context", "hypothesis", "responds_in", "status", "note")
_COMPARE_COLUMNS = (
    "context",
    "hypothesis",
    "responds_in",
    "qvalue_differs",
    "lfdr_differs",
    "pvalue_differs",
    "log_bf_differs",
    "delta_log2_ec50",
    "delta_log2_ec50_q025",
    "delta_log2_ec50_q975",
    "log2_amplitude_ratio",
    "log2_amplitude_ratio_q025",
    "log2_amplitude_ratio_q975",
    "delta_effect_full",
    "delta_effect_full_q025",
    "delta_effect_full_q975",
    "status",
    "note",
)
CONTEXTS, OF_CONTEXTS, CURVE_DOSAGES = "contexts", "of_contexts", "log2_dosages"
NUMBERS = "numbers"  # of contexts in an order, in the order of their names
# columns of the table of `tl.compare` with `order=`
ORDERED_COLUMNS = (
    "hypothesis",
    "qvalue_trend",
    "lfdr_trend",
    "pvalue_trend",
    "log_bf_trend",
    "qvalue_differs",
    "lfdr_differs",
    "log2_ec50_slope",
    "log2_ec50_slope_q025",
    "log2_ec50_slope_q975",
    "log2_amplitude_slope",
    "log2_amplitude_slope_q025",
    "log2_amplitude_slope_q975",
    "status",
    "note",
)


def compare_columns(effect: str) -> tuple[str, ...]:
    """Columns of the table of `tl.compare`, where an effect is called "log2fc", "log_odds" or "delta"."""
    return tuple(name.replace("effect", effect) for name in _COMPARE_COLUMNS)


# in the diagnostics of a cis fit: sd of dosages between technical groups, log2, and the p-value of that
GROUP_SD, GROUP_P = "dosage_sd_between_groups", "dosage_sd_between_groups_p"
# of a cis fit, in its entry of `.uns`: a table of sets of guides, and the rows of their guides in that of the guides
GUIDE_SETS, SET_MEMBERS = "guide_sets", "guide_set_members"
GUIDE_SET_COLUMNS = ("guides", "n_cells", "log2_dosage", "sd", "within_sd")
DEPARTS, DEPARTS_WITH = "departs", "departs_with"  # columns of the table of guides of the trans step
P_ACTS, GUIDE_ACTS = "p_acts", "guide_acts"  # the same, and as `hyper` has it: the probability of acting
INERT_GUIDES = "inert_guides"  # column of the targets of a screen
GUIDE_COLUMNS = (
    "guide",
    "target",
    "is_control",
    "n_cells",
    "log2_dosage",
    "sd",
    "log2fc",
    "log2fc_q025",
    "log2fc_q975",
    "within_sd",
    "escaper_fraction",
    "escaper_fraction_q025",
    "escaper_fraction_q975",
    "log2_dosage_acting",
    "sd_acting",
)
# of a screen: what its table keeps of the trans step, the q-value over all pairs, and the table of targets beside it
PAIR_COLUMNS = (
    "on_knockdown",
    "qvalue",
    "confidence",
    "log2fc_full",
    "log2fc_full_q025",
    "log2fc_full_q975",
    "log2_ec50",
    "log2_ec50_q025",
    "log2_ec50_q975",
    "p_ec50_inside",
    "class",
    "status",
    "note",
    "score",
    "model",
    "lfdr",
    "pvalue",
    "log_bf",
    "lfdr_graded",
    "qvalue_graded",
    "log_bf_graded",
    "log_bf_loo",
    "n_guides_support",
    "log2fc_max",
    "log2fc_max_q025",
    "log2fc_max_q975",
    "baseline",
    "min_detectable_log2fc",
    NEAR_CIS,
    DIRECT_TARGET,
)
PAIR_TEXTS = ("target", "feature", "on_knockdown", "confidence", "class", "status", "note", "model")
QVALUE_UNION, TARGETS_OF_SCREEN = "qvalue_union", "targets"
TARGET_COLUMNS_OF_SCREEN = (
    TARGET,
    "cis_gene",
    "dosage",
    "status",
    "reason",
    "n_guides",
    "n_cells",
    "n_control_cells",
    "log2_dosage_min",
    "log2_dosage_max",
    "n_features",
    "n_calls",
    "n_calls_union",
    "seconds",
    INERT_GUIDES,
)
# of the tables of `design`
POWER_COLUMNS = (
    "n_guides",
    "n_cells_per_guide",
    "n_ntc_cells",
    "mean",
    "log2fc",
    "power",
    "ec50_width",
    "plan",
    "n_ntc_guides",
    "depth",
    "moi",
    "n_cells",
)
COST_COLUMNS, HELPS_MOST = ("n_reads", "cost", "reached"), "helps_most"
# of the groups of responding features
RESPONSE_GROUPS, GROUP, UNCLEAR = "groups", "group", "unclear"
GROUP_COLUMNS = (
    GROUP,
    "p_early",
    "p_proportional",
    "p_threshold",
    "p_buffered",
    "half_at",
    "half_at_q025",
    "half_at_q975",
)
