# The records of the index that this pipeline made, wherever its tag points by now.
hpc3_digest=$(cat "${HPC3_OUT:-out}/$HPC3_NAME/index")
hpc3build inspect "docker://$HPC3_IMAGE/$HPC3_NAME:$HPC3_TAG@$hpc3_digest" --records \
    >"${HPC3_OUT:-out}/$HPC3_NAME/records.new"
mv "${HPC3_OUT:-out}/$HPC3_NAME/records.new" "${HPC3_OUT:-out}/$HPC3_NAME/records.jsonl"
