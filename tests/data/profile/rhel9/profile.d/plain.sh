# Names nobody: must stay as it is (pyramid -until, whoamix, valid -number).
export plain_uid=$(id -u)
