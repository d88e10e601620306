# What each role may do is in ../policies, one file a policy; here is only what it is about.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  policies   = "${path.module}/../policies"
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition

  trust_ecs_tasks = templatefile("${local.policies}/trust-ecs-tasks.json", {
    account_id = local.account_id
    partition  = local.partition
    region     = var.region
  })
}

# The jobs' own roles. The clean-up's has no policy: it is a name without permissions.

resource "aws_iam_role" "task" {
  for_each = local.jobs

  name               = "${local.names[each.key]}-task"
  description        = "What ${local.names[each.key]} may do."
  assume_role_policy = local.trust_ecs_tasks
}

resource "aws_iam_role_policy" "put_metric_data" {
  for_each = { for job, settings in local.jobs : job => settings if settings.publishes_metrics }

  name = "put-metric-data"
  role = aws_iam_role.task[each.key].id
  policy = templatefile("${local.policies}/task-put-metric-data.json", {
    namespace = "Arrakis/Sandbox"
  })
}

# What ECS needs to start them: the image, the logs, the addresses.

resource "aws_iam_role" "execution" {
  name               = "${var.name_prefix}-sandbox-jobs-execution"
  description        = "What ECS needs to start the sandbox jobs."
  assume_role_policy = local.trust_ecs_tasks
}

resource "aws_iam_role_policy" "execution" {
  name = "start-the-jobs"
  role = aws_iam_role.execution.id
  policy = templatefile("${local.policies}/execution-role.json", {
    repository_arn  = data.aws_ecr_repository.this.arn
    log_stream_arns = [for group in aws_cloudwatch_log_group.job : "${group.arn}:*"]
    secret_arns     = values(var.secret_arns)
  })
}

resource "aws_iam_role_policy" "execution_kms" {
  count = length(var.secrets_kms_key_arns) > 0 ? 1 : 0

  name = "decrypt-the-addresses"
  role = aws_iam_role.execution.id
  policy = templatefile("${local.policies}/execution-role-kms.json", {
    key_arns = var.secrets_kms_key_arns
    region   = var.region
  })
}

# What EventBridge needs to start them. Revisions of these families, in this cluster, with these roles; no others.

resource "aws_iam_role" "events" {
  name        = "${var.name_prefix}-sandbox-jobs-events"
  description = "What EventBridge needs to start the sandbox jobs."
  assume_role_policy = templatefile("${local.policies}/trust-events.json", {
    account_id = local.account_id
    rule_arns = [
      for name in values(local.rule_names) : "arn:${local.partition}:events:${var.region}:${local.account_id}:rule/${name}"
    ]
  })
}

resource "aws_iam_role_policy" "events" {
  name = "start-the-jobs"
  role = aws_iam_role.events.id
  policy = templatefile("${local.policies}/events-role.json", {
    cluster_arn = data.aws_ecs_cluster.this.arn
    role_arns   = concat([aws_iam_role.execution.arn], [for role in aws_iam_role.task : role.arn])
    task_definition_arns = [
      for family in values(local.families) : "arn:${local.partition}:ecs:${var.region}:${local.account_id}:task-definition/${family}:*"
    ]
  })
}
