# Asks for no name, so it must stay as it is: the words only look like such calls (valid -number, whoamix).
export plain_uid=$(id -u)
export site_whoami=me
