# What the function may do is in policies/, one file a policy; here is only what it is about.

resource "aws_iam_role" "this" {
  name               = local.name
  description        = "What ${local.name} may do: look, and keep its own queue."
  assume_role_policy = file("${local.policies}/trust-lambda.json")
}

resource "aws_iam_role_policy" "own" {
  name = "keep-its-own-queue"
  role = aws_iam_role.this.id
  policy = templatefile("${local.policies}/own.json", {
    dead_letters_arn = aws_sqs_queue.dead_letters.arn
    log_stream_arn   = "${aws_cloudwatch_log_group.this.arn}:*"
    queue_arn        = aws_sqs_queue.this.arn
    table_arn        = aws_dynamodb_table.this.arn
  })
}

resource "aws_iam_role_policy" "secrets" {
  name = "read-the-secrets"
  role = aws_iam_role.this.id
  policy = templatefile("${local.policies}/secrets.json", {
    secret_arns = concat([var.webhook_secret_arn], var.secret_arns)
  })
}

resource "aws_iam_role_policy" "secrets_kms" {
  count = length(var.secrets_kms_key_arns) > 0 ? 1 : 0

  name = "decrypt-the-secrets"
  role = aws_iam_role.this.id
  policy = templatefile("${local.policies}/secrets-kms.json", {
    key_arns = var.secrets_kms_key_arns
    region   = var.region
  })
}

resource "aws_iam_role_policy" "diagnose" {
  name = "look-at-production"
  role = aws_iam_role.this.id
  policy = templatefile("${local.policies}/diagnose.json", {
    log_group_arns = [
      for name in var.log_groups :
      "arn:${data.aws_partition.current.partition}:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:${name}:*"
    ]
  })
}

# Lambda itself makes the network interfaces; the function's own code is denied the same.
resource "aws_iam_role_policy" "network" {
  name = "be-in-the-network"
  role = aws_iam_role.this.id
  policy = templatefile("${local.policies}/network.json", {
    function_arn = "arn:${data.aws_partition.current.partition}:lambda:${var.region}:${data.aws_caller_identity.current.account_id}:function:${local.name}"
  })
}
