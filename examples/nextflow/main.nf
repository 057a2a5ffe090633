// A screen by one process: one file in, a folder with the store and two tables out.
//
//   nextflow run main.nf --data screen.h5ad --options '--control NTC --batch-key lane'

process DREAMSC_SCREEN {
    tag "${meta.id}"
    label 'process_medium'

    input:
    tuple val(meta), path(data)

    output:
    tuple val(meta), path("${prefix}"), emit: store
    tuple val(meta), path("${prefix}/screen.parquet"), emit: pairs
    tuple val(meta), path("${prefix}/targets.tsv"), emit: targets
    tuple val(meta), path("${prefix}/summary.txt"), emit: summary, optional: true
    path "${prefix}/multiqc/dream_sc_screen_targets_mqc.tsv", emit: mqc, optional: true
    path "versions.yml", emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    prefix = task.ext.prefix ?: "${meta.id}"
    def args = task.ext.args ?: (params.options ?: '')
    """
    dream-sc screen ${data} -o ${prefix} --n-jobs ${task.cpus} ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        dream-sc: \$(python -c 'import importlib.metadata as m; print(m.version("dream-sc"))')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}/multiqc
    touch ${prefix}/screen.parquet ${prefix}/targets.tsv ${prefix}/summary.txt versions.yml
    touch ${prefix}/multiqc/dream_sc_screen_targets_mqc.tsv
    """
}

workflow {
    DREAMSC_SCREEN(Channel.fromPath(params.data).map { file -> [[id: file.baseName], file] })
}
