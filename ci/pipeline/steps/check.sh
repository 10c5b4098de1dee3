hpc3_digest=$(cat "$hpc3_out/digest")
hpc3build check "docker://$HPC3_IMAGE/$HPC3_NAME@$hpc3_digest" --static config --junit "$hpc3_out/junit.xml"
