locals {
  # `task` is the invoke task that runs. The periods are those of the alarms: sandbox-cleanup-failures looks at 900 s,
  # sandbox-count-high at 300 s. A start that comes later than `start_within` seconds is left to the next one.
  jobs = {
    cleanup = {
      task              = "cleanup"
      arguments         = var.cleanup_orphaned ? ["--orphaned"] : []
      schedule          = "rate(15 minutes)"
      start_within      = 600
      description       = "Sandboxes past their time are cleaned up."
      publishes_metrics = false # its metrics are lines in its log (embedded metric format)
    }
    orphan-detection = {
      task              = "orphan-detection"
      arguments         = []
      schedule          = "rate(1 day)"
      start_within      = 3600
      description       = "Schemas and keys that no sandbox owns are counted."
      publishes_metrics = true
    }
    publish-metrics = {
      task              = "publish-metrics"
      arguments         = []
      schedule          = "rate(5 minutes)"
      start_within      = 240
      description       = "The number of sandboxes and mappings is published."
      publishes_metrics = true
    }
  }

  names      = { for job in keys(local.jobs) : job => "${var.name_prefix}-sandbox-${job}" }
  families   = { for job, name in local.names : job => lookup(var.families, job, name) }
  rule_names = { for job, name in local.names : job => lookup(var.rule_names, job, name) }
  log_groups = { for job, name in local.names : job => lookup(var.log_groups, job, "/ecs/${name}") }

  # Fargate has no tmpfs. The image declares this path as a volume of its own user, and a task's empty volume that is
  # mounted there takes over that ownership.
  state_dir = "/tmp/runbooks"
}

data "aws_ecs_cluster" "this" {
  cluster_name = var.cluster_name
}

data "aws_ecr_repository" "this" {
  name = var.repository_name
}

resource "aws_cloudwatch_log_group" "job" {
  for_each = local.jobs

  name              = local.log_groups[each.key]
  retention_in_days = var.log_retention_days
  skip_destroy      = true # what was logged outlives the job
}

resource "aws_ecs_task_definition" "job" {
  for_each = local.jobs

  family                   = local.families[each.key]
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task[each.key].arn
  skip_destroy             = true # earlier revisions are the way back

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  volume {
    name = "state"
  }

  container_definitions = jsonencode([
    {
      name                   = "runbooks"
      image                  = "${data.aws_ecr_repository.this.repository_url}@${var.image_digest}"
      command                = concat([each.value.task], each.value.arguments)
      essential              = true
      memory                 = var.memory
      user                   = "10001:10001"
      readonlyRootFilesystem = true
      stopTimeout            = 120

      linuxParameters = {
        capabilities       = { drop = ["ALL"] }
        initProcessEnabled = true # process 1 ignores SIGTERM unless it asked for it; an init passes it on
      }

      environment = [
        for name, value in merge(var.extra_environment, {
          ARRAKIS_ENV               = var.environment
          AWS_DEFAULT_REGION        = var.region
          AWS_EC2_METADATA_DISABLED = "true" # Fargate has none; do not wait for it
          RUNBOOKS_STATE_DIR        = local.state_dir
        }) : { name = name, value = value }
      ]

      # ECS reads them with the execution role, so that the job's own role need not.
      secrets = [
        { name = "DATABASE_URL", valueFrom = "${var.secret_arns.database}:url::" },
        { name = "REDIS_URL", valueFrom = "${var.secret_arns.redis}:url::" },
        { name = "NATS_URL", valueFrom = "${var.secret_arns.nats}:url::" },
      ]

      mountPoints = [
        { sourceVolume = "state", containerPath = local.state_dir, readOnly = false },
      ]

      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.job[each.key].name
          awslogs-region        = var.region
          awslogs-stream-prefix = "runbooks"
          mode                  = "non-blocking" # a job does not hang because its log cannot be delivered
          max-buffer-size       = "25m"
        }
      }
    },
  ])
}

resource "aws_cloudwatch_event_rule" "job" {
  for_each = local.jobs

  name                = local.rule_names[each.key]
  description         = each.value.description
  schedule_expression = each.value.schedule
  state               = lookup(var.enabled, each.key, true) ? "ENABLED" : "DISABLED"
}

resource "aws_cloudwatch_event_target" "job" {
  for_each = local.jobs

  rule      = aws_cloudwatch_event_rule.job[each.key].name
  target_id = lookup(var.target_ids, each.key, local.names[each.key])
  arn       = data.aws_ecs_cluster.this.arn
  role_arn  = aws_iam_role.events.arn

  # Tags would need ecs:TagResource; the family says whose task it is.
  ecs_target {
    task_definition_arn = aws_ecs_task_definition.job[each.key].arn
    task_count          = 1
    launch_type         = "FARGATE"

    network_configuration {
      subnets          = var.subnet_ids
      security_groups  = var.security_group_ids
      assign_public_ip = false
    }
  }

  retry_policy {
    maximum_event_age_in_seconds = each.value.start_within
    maximum_retry_attempts       = 10
  }

  dynamic "dead_letter_config" {
    for_each = var.dead_letter_queue_arn == null ? [] : [var.dead_letter_queue_arn]

    content {
      arn = dead_letter_config.value
    }
  }

  # A rule that fires before its role may start a task would fail once.
  depends_on = [aws_iam_role_policy.events]
}
