"""Whether this machine is ready to answer a page, before one comes. Everything is looked at; nothing is changed.

It needs no right that a diagnosis does not need. To be told what a login may change, allow it `+acl|whoami`, `+acl|dryrun` and
`+time` at Redis, publishing to `$SYS.REQ.USER.INFO` at NATS, and iam:SimulatePrincipalPolicy on its own role.
"""

from runbooks.doctor.examination import examine

__all__ = ["examine"]
