locals {
  name     = "${var.name_prefix}-webhook"
  policies = "${path.module}/policies"

  # The longest triage, in seconds. The queue keeps a message away for as long as anybody may be at it, and then some.
  longest = 120
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${local.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "this" {
  function_name = local.name
  description   = "PagerDuty and alarms are answered with a diagnosis. It changes nothing."
  role          = aws_iam_role.this.arn

  package_type     = "Zip"
  filename         = var.package
  source_code_hash = filebase64sha256(var.package)
  runtime          = "python3.13"
  handler          = "runbooks.pagerduty.lambda_handler"
  architectures    = [var.architecture]

  timeout     = local.longest
  memory_size = var.memory

  # Requests are answered in milliseconds; this bounds what a flood of them may cost.
  reserved_concurrent_executions = var.concurrency

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = var.security_group_ids
  }

  # Whoever may read the function's settings can read these: the secrets are named, and read by the function itself.
  environment {
    variables = merge(var.extra_environment, {
      RUNBOOKS_STATE_DIR = "/tmp/runbooks"
      WEBHOOK_QUEUE_URL  = aws_sqs_queue.this.url
      WEBHOOK_SECRET     = var.webhook_secret_arn
      WEBHOOK_TABLE      = aws_dynamodb_table.this.name
      WEBHOOK_TOPICS     = join(",", [for arn, version in var.topics : "${arn}=${version}"])
    }, var.environment == null ? {} : { ARRAKIS_ENV = var.environment })
  }

  logging_config {
    log_format = "Text" # the lines are JSON already
    log_group  = aws_cloudwatch_log_group.this.name
  }

  depends_on = [aws_iam_role_policy.own, aws_iam_role_policy.network]
}

# ---------------------------------------------------------------- what it is invoked by

resource "aws_lambda_function_url" "this" {
  function_name      = aws_lambda_function.this.function_name
  authorization_type = "NONE" # PagerDuty and SNS cannot sign for AWS; their own signatures are checked
}

resource "aws_lambda_permission" "url" {
  statement_id           = "AnybodyByItsUrl"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.this.function_name
  principal              = "*"
  function_url_auth_type = "NONE"
}

# Without the last line anybody could invoke it directly, past the signatures.
resource "aws_lambda_permission" "invoke_by_url" {
  statement_id             = "AnybodyByItsUrlAlone"
  action                   = "lambda:InvokeFunction"
  function_name            = aws_lambda_function.this.function_name
  principal                = "*"
  invoked_via_function_url = true
}

resource "aws_lambda_permission" "topic" {
  for_each = var.topics

  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.this.function_name
  principal      = "sns.amazonaws.com"
  source_arn     = each.key
  source_account = data.aws_caller_identity.current.account_id
}

resource "aws_sns_topic_subscription" "this" {
  for_each = var.topics

  topic_arn = each.key
  protocol  = "lambda"
  endpoint  = aws_lambda_function.this.arn

  depends_on = [aws_lambda_permission.topic]
}

resource "aws_cloudwatch_event_rule" "alarm" {
  count = var.alarm_prefix == null ? 0 : 1

  name        = local.name
  description = "Alarms that are raised are looked at."

  event_pattern = jsonencode({
    source      = ["aws.cloudwatch"]
    detail-type = ["CloudWatch Alarm State Change"]
    detail = {
      alarmName = [{ prefix = var.alarm_prefix }]
      state     = { value = ["ALARM"] }
    }
  })
}

resource "aws_cloudwatch_event_target" "alarm" {
  count = var.alarm_prefix == null ? 0 : 1

  rule = aws_cloudwatch_event_rule.alarm[0].name
  arn  = aws_lambda_function.this.arn
}

resource "aws_lambda_permission" "rule" {
  count = var.alarm_prefix == null ? 0 : 1

  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.alarm[0].arn
}

# What SNS and EventBridge bring, and the function could not put into the queue.
resource "aws_lambda_function_event_invoke_config" "this" {
  function_name                = aws_lambda_function.this.function_name
  maximum_event_age_in_seconds = 3600
  maximum_retry_attempts       = 2

  destination_config {
    on_failure {
      destination = aws_sqs_queue.dead_letters.arn
    }
  }
}
