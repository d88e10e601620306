# ---------------------------------------------------------------- which target

variable "environment" {
  description = "The target's name: ARRAKIS_ENV of the jobs (a file under environments/) and the metrics' Environment dimension."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.environment))
    error_message = "A name under environments/, without .toml: small letters, digits and hyphens."
  }
}

variable "region" {
  description = "The AWS region of the cluster, the rules and the secrets."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region's code, such as eu-central-1."
  }
}

variable "secret_arns" {
  description = "The secrets whose JSON has a `url` member. Whole ARNs with the six random characters, so that nothing else matches."
  type = object({
    database = string
    redis    = string
    nats     = string
  })

  validation {
    condition = alltrue([
      for arn in values(var.secret_arns) :
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

# ---------------------------------------------------------------- which image

variable "repository_name" {
  description = "The ECR repository of the image."
  type        = string
  default     = "arrakis-runbooks"
}

variable "image_digest" {
  description = "The image, by digest: what was built and tried is what runs, and an earlier digest is the way back."
  type        = string

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "sha256: and 64 hexadecimal digits, as `aws ecr describe-images` prints it."
  }
}

variable "cpu_architecture" {
  description = "What the image was built for."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "X86_64 or ARM64."
  }
}

# ---------------------------------------------------------------- where the jobs run

variable "cluster_name" {
  description = "The ECS cluster, which exists already."
  type        = string
  default     = "arrakis"
}

variable "subnet_ids" {
  description = "Private subnets with a way to PostgreSQL, Redis, NATS and the AWS interfaces."
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

variable "cpu" {
  description = "CPU units of each task, of 1024 to a core."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048], var.cpu)
    error_message = "256, 512, 1024 or 2048, as Fargate has them."
  }
}

variable "memory" {
  description = "Memory of each task in MiB, as Fargate allows beside `cpu`."
  type        = number
  default     = 512

  validation {
    condition     = var.memory >= 512 && var.memory % 512 == 0
    error_message = "512 or a multiple of it."
  }
}

# ---------------------------------------------------------------- names

variable "name_prefix" {
  description = "What names begin with: `arrakis` gives arrakis-sandbox-cleanup, `arrakis-production` gives arrakis-production-sandbox-cleanup."
  type        = string
  default     = "arrakis"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name_prefix))
    error_message = "Small letters, digits and hyphens, at most 24: names of roles end at 64 characters."
  }
}

variable "rule_names" {
  description = "Rules that are named otherwise, by job. The default is the job's name with the prefix."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.rule_names), ["cleanup", "orphan-detection", "publish-metrics"])) == 0
    error_message = "The jobs are cleanup, orphan-detection and publish-metrics."
  }
}

variable "families" {
  description = "Task-definition families that are named otherwise, by job. The default is the job's name with the prefix."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.families), ["cleanup", "orphan-detection", "publish-metrics"])) == 0
    error_message = "The jobs are cleanup, orphan-detection and publish-metrics."
  }
}

variable "log_groups" {
  description = "Log groups that are named otherwise, by job. The default is /ecs/ and the job's name with the prefix."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.log_groups), ["cleanup", "orphan-detection", "publish-metrics"])) == 0
    error_message = "The jobs are cleanup, orphan-detection and publish-metrics."
  }
}

variable "target_ids" {
  description = "The target's id in each rule, by job. Taking over a rule, name the id that it has: another id is a second target, and both would run."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.target_ids), ["cleanup", "orphan-detection", "publish-metrics"])) == 0
    error_message = "The jobs are cleanup, orphan-detection and publish-metrics."
  }
}

# ---------------------------------------------------------------- what they do

variable "enabled" {
  description = "Whether each job's rule fires, by job; what is not named does. Say false for a rule that an operator has disabled, or applying enables it again."
  type        = map(bool)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.enabled), ["cleanup", "orphan-detection", "publish-metrics"])) == 0
    error_message = "The jobs are cleanup, orphan-detection and publish-metrics."
  }
}

variable "cleanup_orphaned" {
  description = "Whether the clean-up also takes care of orphaned schemas and keys (--orphaned)."
  type        = bool
  default     = false
}

variable "extra_environment" {
  description = "More variables for the jobs, such as NATS_TLS_CA. They can be read by whoever may read a task definition: no secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, value in var.extra_environment : can(regex("^[A-Z][A-Z0-9_]*$", name)) && !endswith(name, "_URL") && !startswith(name, "AWS_")])
    error_message = "Capital letters, digits and underscores; addresses (…_URL) come from secrets, AWS' own variables from the roles."
  }
}

variable "dead_letter_queue_arn" {
  description = "An SQS queue for starts that failed. Its own policy must let events.amazonaws.com send to it."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "How long the jobs' logs are kept."
  type        = number
  default     = 30
}

variable "tags" {
  description = "Tags for everything that is made here."
  type        = map(string)
  default     = {}
}
