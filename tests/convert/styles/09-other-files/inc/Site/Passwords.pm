package Site::Passwords;
our %KEYS = (decrypt => "s3cret near", encrypt => "s3cret far");
1;
