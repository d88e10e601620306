# ---------------------------------------------------------------- which target

variable "environment" {
  description = "The target's name (a file under environments/), where there is one alone. Otherwise each alarm's prefix tells."
  type        = string
  default     = null

  validation {
    condition     = var.environment == null || can(regex("^[a-z][a-z0-9-]{0,31}$", var.environment))
    error_message = "A name under environments/, without .toml: small letters, digits and hyphens."
  }
}

variable "region" {
  description = "The AWS region of the function, and of what it looks at."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region's code, such as eu-central-1."
  }
}

variable "log_groups" {
  description = "The log groups that diagnoses read: cleanup_logs, worker_logs and api_logs of the environment's file."
  type        = list(string)

  validation {
    condition     = length(var.log_groups) > 0 && alltrue([for name in var.log_groups : can(regex("^[A-Za-z0-9/._#-]+$", name))])
    error_message = "At least one, each by its name."
  }
}

# ---------------------------------------------------------------- secrets

variable "webhook_secret_arn" {
  description = "The secret whose JSON is {\"pagerduty\": [\"…\"], \"action\": [\"…\"], \"events\": [\"…\"]}. The whole ARN, with the six random characters."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.webhook_secret_arn))
    error_message = "The whole ARN of a secret, ending in a hyphen and six characters."
  }
}

variable "secret_arns" {
  description = "The secrets that the environments' files name: PagerDuty's token and the addresses of PostgreSQL, Redis and NATS. Users that may only read are enough."
  type        = list(string)

  validation {
    condition = length(var.secret_arns) > 0 && alltrue([
      for arn in var.secret_arns :
      can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", arn))
    ])
    error_message = "Each is the whole ARN of a secret, ending in a hyphen and six characters."
  }
}

variable "secrets_kms_key_arns" {
  description = "The customer-managed keys that encrypt the secrets. Leave it empty where they are encrypted with aws/secretsmanager."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secrets_kms_key_arns : can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", arn))])
    error_message = "Each is a key's ARN (not an alias')."
  }
}

# ---------------------------------------------------------------- what it listens to

variable "topics" {
  description = "The SNS topics that alarms notify, each with its SignatureVersion, which counts for HTTPS alone: { \"arn:…\" = 2 }."
  type        = map(number)
  default     = {}

  validation {
    condition = alltrue([
      for arn, version in var.topics :
      can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", arn)) && contains([1, 2], version)
    ])
    error_message = "ARNs of topics, each with 1 or 2."
  }
}

variable "alarm_prefix" {
  description = "What the names of alarms begin with that EventBridge is to bring. None are brought where it is null: PagerDuty or SNS does."
  type        = string
  default     = null
}

variable "alarm_actions" {
  description = "Whom to tell when something could not be triaged, such as a topic's ARN. There is no alarm where it is empty."
  type        = list(string)
  default     = []
}

# ---------------------------------------------------------------- the function

variable "package" {
  description = "The zip file with the code and what it needs."
  type        = string

  validation {
    condition     = endswith(var.package, ".zip")
    error_message = "The path of a zip file."
  }
}

variable "architecture" {
  description = "What the package was built for."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "x86_64 or arm64."
  }
}

variable "memory" {
  description = "Memory of the function in MB; its share of a CPU grows with it."
  type        = number
  default     = 1024

  validation {
    condition     = var.memory >= 256 && var.memory <= 10240
    error_message = "From 256 to 10240."
  }
}

variable "concurrency" {
  description = "How many requests and triages may be handled at a time. It is taken off what the account has for all its functions."
  type        = number
  default     = 10

  validation {
    condition     = var.concurrency >= 4
    error_message = "At least 4: two triage, and requests need room beside them."
  }
}

variable "subnet_ids" {
  description = "Private subnets with a way to PostgreSQL, Redis, NATS, the AWS interfaces and, through a NAT, PagerDuty."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : startswith(id, "subnet-")])
    error_message = "At least one, each subnet-…"
  }
}

variable "security_group_ids" {
  description = "Security groups that PostgreSQL, Redis and NATS let in. They need no inbound rule."
  type        = list(string)

  validation {
    condition     = length(var.security_group_ids) > 0 && alltrue([for id in var.security_group_ids : startswith(id, "sg-")])
    error_message = "At least one, each sg-…"
  }
}

variable "extra_environment" {
  description = "More variables for the function, such as LOG_LEVEL. They can be read by whoever may read its settings: no secrets."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for name, value in var.extra_environment :
      can(regex("^[A-Z][A-Z0-9_]*$", name)) && !endswith(name, "_URL") && !endswith(name, "_SECRETS") && !endswith(name, "_TOKEN") && !startswith(name, "AWS_")
    ])
    error_message = "Capital letters, digits and underscores; addresses, secrets and tokens come from Secrets Manager."
  }
}

# ---------------------------------------------------------------- names

variable "name_prefix" {
  description = "What names begin with: `arrakis` gives arrakis-webhook."
  type        = string
  default     = "arrakis"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name_prefix))
    error_message = "Small letters, digits and hyphens, at most 24."
  }
}

variable "log_retention_days" {
  description = "How long the function's log is kept."
  type        = number
  default     = 30
}

variable "tags" {
  description = "Tags for everything that is made here."
  type        = map(string)
  default     = {}
}
